"""`init` of a recipe's model: the start of every network inside that names none."""

import pytest
import torch

from moebius.kit.errors import RecipeError
from moebius.lab.model.build import build_model
from moebius.lab.model.resolve import resolve
from moebius.lab.recipe import load_recipe

FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 10, "domains": 1}
CONV = {"kind": "conv", "filters": [4], "hidden": [8]}
RECIPE = {
    "name": "starts",
    "data": {"sets": [{"kind": "digits"}], "size": 8},
    "model": {"gate": CONV, "experts": {**CONV, "count": 2}},
    "variants": {"torch": {}, "keras": {"init": "keras"}, "mixed": {"init": "keras", "gate": {"init": "he"}}},
}


def starts(model):
    return [module.init for module in model.modules() if hasattr(module, "init")]


def test_gate_and_experts_take_the_start_of_the_model():
    models = {variant.name: build_model(variant.model, FACTS) for variant in load_recipe(RECIPE).variants}
    assert starts(models["torch"]) == ["torch"] * 3
    assert starts(models["keras"]) == ["keras"] * 3
    assert starts(models["mixed"]) == ["he", "keras", "keras"]
    assert not any(value.any() for name, value in models["keras"].named_parameters() if name.endswith("bias"))


def test_without_init_nothing_changes():
    (variant, *_) = load_recipe(RECIPE).variants
    assert "init" not in variant.model
    torch.manual_seed(0)
    model = build_model(variant.model, FACTS)
    torch.manual_seed(0)
    explicit = build_model({**variant.model, "init": "torch"}, FACTS)
    assert all(map(torch.equal, model.parameters(), explicit.parameters()))


def test_networks_with_another_default_are_told_as_well():
    vgg = {"kind": "vgg", "filters": [[2]], "dropout": 0.0}
    part = {"gate": {"kind": "linear"}, "experts": vgg}
    assert starts(build_model(part, FACTS)) == ["torch", "keras", "keras"]
    assert starts(build_model({**part, "init": "torch"}, FACTS)) == ["torch", "torch", "torch"]


def test_mixtures_inside_and_layers_inherit_it():
    inner = {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}
    nested = {"gate": {"kind": "linear"}, "experts": [inner, {**inner, "init": "orthogonal"}], "init": "he"}
    spec = resolve(nested, FACTS)
    assert spec["gate"]["init"] == "he"
    assert [expert["gate"]["init"] for expert in spec["experts"]] == ["he", "orthogonal"]
    layers = [{"kind": "linear", "classes": 16}, {"kind": "sparse_ffn", "hidden": 4, "experts": 2}, {"kind": "linear"}]
    model = build_model({"layers": layers, "init": "keras"}, FACTS)
    assert set(starts(model)) == {"keras"}
    assert len(starts(model)) == 4  # two dense layers, the sparse one and its gate; the experts are a stack
    assert not any(value.any() for name, value in model.named_parameters() if "bias" in name)


def test_a_variant_may_change_the_start_of_layers_alone():
    model = {
        "layers": [
            {"kind": "linear", "classes": 16},
            {"kind": "sparse_ffn", "hidden": 4, "experts": 2},
            {"kind": "linear"},
        ]
    }
    recipe = load_recipe({**RECIPE, "model": model, "variants": {"a": {}, "b": {"init": "he"}}})
    assert [set(starts(build_model(variant.model, FACTS))) for variant in recipe.variants] == [{"torch"}, {"he"}]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"init": "glorot"}, "variants.a.init: needs one of torch, keras, he, lecun, orthogonal, got 'glorot'"),
        ({"gate": {"init": "glorot"}}, "variants.a.gate.init: needs one of torch"),
    ],
)
def test_an_unknown_start_is_named_at_its_key(changes, line):
    with pytest.raises(RecipeError) as error:
        load_recipe({**RECIPE, "variants": {"a": changes}})
    assert line in str(error.value)
