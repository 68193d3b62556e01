"""The JSON Schema accepts what the checks accept, and refuses what breaks structure."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import moebius as mb
from moebius.kit import registry
from moebius.kit.registry import kinds
from moebius.lab.recipe.json_schema import recipe_schema
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.shipped import find_recipe, read_recipe, shipped_recipes
from moebius.lab.yaml_text import read_yaml

WRONG = read_yaml((Path(__file__).parent / "wrong.yaml").read_text(encoding="utf-8"), "wrong.yaml")


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(json.dumps(recipe_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_as_written_and_as_resolved(name, validator):
    validator.validate(read_recipe(find_recipe(name), name))
    validator.validate(json.loads(json.dumps(load_recipe(name, preset="quick").resolved())))


@pytest.mark.parametrize("case", WRONG, ids=[case["line"].split(",")[0] for case in WRONG])
def test_a_recipe_that_breaks_structure_is_not(case, validator, written):
    raw = read_yaml(Path(written((case["old"], case["new"]))).read_text(encoding="utf-8"), "small.yaml")
    assert validator.is_valid(raw) == (not case.get("structure", True))


def test_most_wrong_recipes_break_structure():
    assert sum(case.get("structure", True) for case in WRONG) > 50


def test_every_definition_is_used_and_every_reference_leads_to_one(validator):
    definitions = validator.schema["$defs"]
    text = json.dumps(validator.schema)
    references = {name.split('"')[0] for name in text.split('"$ref": "#/$defs/')[1:]}
    assert references == set(definitions)


@pytest.mark.parametrize(
    ("definition", "room", "besides"),
    [
        ("gate", "gates", {"stage"}),
        ("router", "routers", set()),
        ("expert", "experts", {"mixture", "stage"}),
        ("combine", "combine", set()),
        ("loss", "losses", set()),
        ("schedule", "schedules", set()),
        ("source", "data.sources", set()),
        ("augmentation", "data.augmentation", set()),
    ],
)
def test_all_kinds_of_a_room_are_there(definition, room, besides, validator):
    options = validator.schema["$defs"][definition]["oneOf"]
    names = {option["properties"]["kind"]["const"] for option in options if "properties" in option}
    # YAML cannot write the networks that these take, or the rows that a gate keeps.
    not_written = {
        "experts": {"abstention", "adapter", "cascade", "tempered"},
        "gates": {"knora_eliminate", "knora_union"},
    }
    assert names == ({*kinds(room)} - not_written.get(room, set())) | besides


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ("{gate: {hidden: [8]}}", True),  # laid over the shared gate
        ("{gate: {hiden: [8]}}", False),
        ("{experts: [{hidden: [8]}]}", False),  # a list replaces: each needs a kind
        ("{training: {optimizer: {weight_decay: 0.1}}}", True),
        ("{training: {optimizer: sgd}}", True),
        ("{training: {optimizer: sgdd}}", False),
        ("{training: {watch: {plateau: {factor: 0.1}}}}", True),
        ("{training: {router: {k: {epochs: 3}}}}", True),
        ("{training: {losses: [{kind: best_fit, floor: {kind: constant, value: 1}}]}}", True),
        ("{training: {losses: [{kind: best_fit, balanced: {kind: constant, value: 1}}]}}", False),
        ("{router: {kind: heads, heads: 2, router: {kind: top_k, k: 1}}}", True),
        ("{experts: {kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 2}, count: 2}}", True),
        ("{experts: {kind: mixture, gates: {kind: linear}}}", False),
        ("{gate: {kind: mixture}}", False),
        ("{layers: [{kind: linear, classes: 8}, {kind: sparse_ffn, hidden: 8}, {kind: linear}]}", True),
        ("{layers: [{kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 2}}]}", True),
        ("{layers: {kind: sparse_ffn, hidden: 8}}", False),
        ("", True),
    ],
)
def test_a_variant_is_a_change(change, valid, validator, written):
    text = Path(written(("{gate: {kind: linear}}", change))).read_text(encoding="utf-8")
    assert validator.is_valid(read_yaml(text, "small.yaml")) == valid


def test_a_registered_kind_is_part_of_the_schema(monkeypatch):
    monkeypatch.setattr(registry, "_plugins", {})

    @mb.register("gates")
    class Tilted(torch.nn.Module):
        """Scores that lean to one side.

        Arguments:
            experts: E, number of scores per row.
            angle: of the lean,
                in degrees.
        """

        def __init__(self, experts: int, angle: float = 10.0):
            super().__init__()

    (option,) = [one for one in recipe_schema()["$defs"]["gate"]["oneOf"] if one["title"] == "tilted"]
    assert option["description"] == "Scores that lean to one side."
    assert option["required"] == ["kind"]
    assert option["properties"]["angle"] == {
        "type": "number",
        "description": "of the lean, in degrees.",
        "default": 10.0,
    }
