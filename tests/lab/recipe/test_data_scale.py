import json

import pytest
from jsonschema import Draft202012Validator

from moebius.kit.errors import RecipeError
from moebius.lab.recipe import load_recipe
from moebius.lab.recipe.json_schema import recipe_schema

RECIPE = {
    "name": "scales",
    "data": {"sets": [{"kind": "digits"}], "size": 8},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"unit": {}, "raw": {"data": {"scale": "raw"}}},
}
STAGES = {
    "stages": {"base": {"network": {"kind": "linear"}}},
    "variants": {"raw": {"data": {"scale": "raw"}, "experts": [{"kind": "stage", "stage": "base"}]}},
}


def test_a_variant_has_the_scale_of_the_data_or_another():
    assert [variant.scale for variant in load_recipe(RECIPE).variants] == ["unit", "raw"]
    assert [variant.scale for variant in load_recipe(RECIPE, ["data.scale=signed"]).variants] == ["signed", "raw"]
    assert load_recipe(RECIPE, ["variants.unit.data.scale=standardised"]).variants[0].scale == "standardised"


def test_what_is_shown_is_a_recipe_again():
    recipe = load_recipe(RECIPE)
    assert load_recipe(recipe.resolved()).variants == recipe.variants


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": {**RECIPE["data"], "scale": "rau"}}, "data.scale: needs one of unit, raw, standardised, signed"),
        ({"variants": {"a": {"data": {"scale": "rau"}}}}, "variants.a.data.scale: needs one of unit, raw"),
        ({"variants": {"a": {"data": {"size": 16}}}}, "variants.a.data.size: is the same for all variants"),
        ({"variants": {"a": {"data": {"scael": "raw"}}}}, "variants.a.data.scael: no such key"),
        ({"variants": {"a": {"data": "raw"}}}, "variants.a.data: needs a mapping"),
        (
            {"variants": {"a": {"data": {"scale": "raw"}, "gate": {"kind": "vae", "filters": [4]}}}},
            "variants.a.data.scale: must be unit, for the gate vae needs pixels from 0 to 1",
        ),
        (
            {"data": {**RECIPE["data"], "scale": "signed"}, "variants": {"a": {"gate": {"kind": "vae"}}}},
            "data.scale: must be unit, for the gate vae",
        ),
        (STAGES, "variants.raw.data.scale: must be that of the data, unit, on which its stages were trained: base"),
        (
            {"data": {"sets": [{"kind": "sklearn", "name": "iris"}], "scale": "raw"}, "variants": {"a": {}}},
            "data.scale: is of the pixels of images, and the data are a table",
        ),
        (
            {"data": {"sets": [{"kind": "sklearn", "name": "iris"}]}},
            "variants.raw.data.scale: is of the pixels of images, and the data are a table",
        ),
    ],
)
def test_a_wrong_scale_is_named_at_its_key(changes, line):
    with pytest.raises(RecipeError) as error:
        load_recipe({**RECIPE, **changes})
    assert line in str(error.value)


def test_stages_and_variants_of_one_scale_are_no_problem():
    data = {**RECIPE["data"], "scale": "raw"}
    assert [variant.scale for variant in load_recipe({**RECIPE, **STAGES, "data": data}).variants] == ["raw"]


def test_the_json_schema_knows_it():
    validator = Draft202012Validator(recipe_schema())
    assert not list(validator.iter_errors(json.loads(json.dumps(RECIPE))))
    for data in ({"scale": "rau"}, {"size": 8}, {}):
        assert list(validator.iter_errors({**RECIPE, "variants": {"raw": {"data": data}}}))
