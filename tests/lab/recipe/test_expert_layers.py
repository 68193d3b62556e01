"""Layers with gates, experts and towers in a recipe: what is wrong is reported at its key, all of it."""

import json

import jsonschema
import pytest

from moebius.kit.registry import find, kinds
from moebius.lab.checks.keywords import read_keywords
from moebius.lab.checks.problems import path_text
from moebius.lab.recipe.execution import check_execution
from moebius.lab.recipe.json_schema import recipe_schema
from moebius.lab.recipe.kind_schemas import writable_kinds
from moebius.lab.recipe.layer_keys import LAYER_KEYS
from moebius.lab.recipe.model import check_model, dry_build
from moebius.lab.yaml_text import read_yaml

FACTS = {"features": 10, "cardinalities": [], "classes": 6, "outputs": {"price": 1, "cut": 5}, "domains": 1}
IMAGES = {"features": 64, "channels": 1, "size": 8, "classes": 3, "positions": [8, 8], "domains": 1}
MLP = "{kind: mlp, classes: 16, count: 4}"
LEVEL = "gates: {kind: linear}, experts: {kind: mlp, classes: 16}, shared: {kind: mlp, classes: 16}"
UNETS = "gate: {kind: unet}, experts: {kind: unet, count: 2}"
FUSED = "execution: fused, router: {kind: top_k, k: 1}"
VALID = {
    "several": f"kind: multi_gate_mixture, gates: {{kind: linear}}, experts: {MLP}, towers: {{kind: linear}}",
    "by name": "kind: multi_gate_mixture, gates: {price: {kind: mlp}, cut: {kind: linear}}, execution: loop,"
    f" experts: [{MLP}, {{kind: linear, classes: 16}}], towers: {{price: {{kind: mlp}}, cut: {{kind: linear}}}},"
    " router: {price: {kind: soft}, cut: {kind: top_k, k: 1}}, combine: {kind: weighted_sum}",
    "own": f"kind: cgc, {LEVEL}, towers: {{kind: linear}}",
    "own by name": "kind: cgc, gates: {kind: linear}, experts: {price: {kind: mlp, classes: 9}, cut: [{kind: linear,"
    " classes: 9}]}, shared: {kind: linear, classes: 9}, towers: {kind: linear}",
    "levels": f"kind: ple, levels: [{{{LEVEL}}}, {{kind: cgc, {LEVEL}, towers: {{kind: linear}}}}]",
    "pixels": f"kind: position_mixture, {UNETS}, router: {{kind: top_k, k: 1}}",
}


def layers(text):
    return {"layers": [read_yaml(f"{{{text}}}", "a part")]}


def lines(text, facts=FACTS):
    """The problems of names and types, and without any those of the dry build."""
    spec = layers(text) if isinstance(text, str) else text
    problems = check_model(spec)
    return [problem.line() for problem in problems or dry_build(spec, facts)]


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(json.dumps(recipe_schema()))
    return jsonschema.Draft202012Validator({"$ref": "#/$defs/model", "$defs": schema["$defs"]})


@pytest.mark.parametrize("name", VALID)
def test_a_valid_layer_has_no_problem_and_fits_the_schema(name, validator):
    facts = IMAGES if name == "pixels" else FACTS
    assert lines(VALID[name], facts) == []
    assert check_execution(layers(VALID[name]), facts, "fp32", {}) == []
    validator.validate(layers(VALID[name]))


@pytest.mark.parametrize("kind", LAYER_KEYS)
def test_the_keys_are_arguments_of_the_layer(kind):
    assert kind in kinds("layers")
    assert {key.name for key in LAYER_KEYS[kind]} == {word.name for word in read_keywords(find("layers", kind))}
    assert kind not in writable_kinds("layers")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: cgc, gates: {kind: linear}", ["experts: is missing"]),
        (
            VALID["several"].replace("towers", "heads"),
            ["heads: multi_gate_mixture has no such keyword"],
        ),
        (VALID["several"].replace("kind: linear", "kind: linaer", 1), ["gates.kind: no such kind"]),
        (
            "kind: multi_gate_mixture, gates: {price: {kind: linaer}, cut: {hidden: [8]}},"
            " experts: {kind: mlp, count: 0}",
            ["gates.price.kind: no such kind", "gates.cut.kind: is missing", "experts.count: needs a whole number"],
        ),
        (VALID["several"] + ", router: {kind: topk}", ["router.kind: no such kind"]),
        (VALID["several"] + ", combine: sum", ["combine: needs a mapping with a kind"]),
        (VALID["several"] + ", execution: fast", ["execution: no such execution"]),
        (
            VALID["several"].replace("towers: {kind: linear}", "towers: {kind: linear, count: 2}"),
            ["towers.count: is for experts, and this is one part"],
        ),
        ("kind: ple, levels: {}", ["levels: needs a list of levels"]),
        ("kind: ple, levels: [{kind: mlp}]", ["levels[0]: needs a mapping with the keys of a cgc"]),
        (
            f"kind: ple, levels: [{{{LEVEL}, tower: {{kind: linear}}}}]",
            ["levels[0].tower: cgc has no such keyword"],
        ),
        (f"kind: position_mixture, {UNETS}, channel_axis: 2", ["channel_axis: needs 1 or -1"]),
        (
            "kind: position_mixture, gates: {kind: unet}",
            ["gates: position_mixture has no such", "gate: is", "experts: is"],
        ),
    ],
)
def test_names_and_types(text, expected):
    problems = lines(text)
    assert len(problems) == len(expected)
    assert all(line.startswith(f"layers[0].{start}") for line, start in zip(problems, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VALID["several"].replace("classes: 16, ", ""), "experts.classes: is missing"),
        (VALID["by name"].replace("price: {kind: mlp}", "prise: {kind: mlp}", 1), "gates.prise: no such task"),
        (
            VALID["several"].replace("linear}, experts", "mlp, hidden: [0]}, experts"),
            "gates.hidden: needs whole numbers",
        ),
        (VALID["own"].replace("shared: {kind: mlp, classes: 16}", "shared: {kind: mlp, classes: 8}"), "kind: "),
    ],
)
def test_values(text, expected):
    (line,) = lines(text)
    assert line.startswith("layers[0]: does not run" if expected == "kind: " else f"layers[0].{expected}")


def test_outputs_that_are_not_those_of_the_data():
    several, one = (
        {**FACTS, "outputs": {"cut": 5}, "classes": 5},
        {key: FACTS[key] for key in FACTS if key != "outputs"},
    )
    (line,) = lines(VALID["several"], one)
    assert line.startswith("layers[0].kind: gives an output for each of several tasks, and the data have one")
    linear = {"layers": [{"kind": "sparse_ffn", "dim": 10, "hidden": 8, "experts": 2, "k": 1}, {"kind": "linear"}]}
    (line,) = lines(linear, several)
    assert line.startswith("layers[1]: gives (5,) for a row where the data have the tasks cut with 5")
    assert "multi_gate_mixture" in line
    mixture = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}
    (line,) = lines(mixture, FACTS)
    assert line.startswith("experts: gives (6,) for a row where the data have the tasks price with 1, cut with 5")
    (line,) = lines(mixture, IMAGES)
    assert line.startswith("experts: gives (3,) for an image where the data have 3 classes at each of (8, 8) positions")
    whole_images = {"gate": {"kind": "linear"}, "experts": {"kind": "unet", "count": 2}}
    assert lines(whole_images, IMAGES) == []
    (line,) = lines({**whole_images, "gate": {"kind": "unet"}}, IMAGES)
    assert line.startswith("gate: scores each position, and a mixture weighs whole rows")
    (line,) = lines(f"kind: position_mixture, {UNETS}", {**IMAGES, "positions": [4, 4]})
    assert line.startswith("layers[0]: gives (3, 8, 8) for an image where the data have 3 classes at each of (4, 4)")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (VALID["several"] + ", router: {kind: top_k, k: 1}, execution: grouped", "layers[0].execution"),
        (VALID["levels"].replace("shared", f"{FUSED}, shared", 1), "layers[0].levels[0].execution"),
    ],
)
def test_an_execution_that_refuses_is_named_at_its_layer(text, path):
    spec = layers(text)
    assert check_model(spec) == []
    assert [path_text(problem.path) for problem in check_execution(spec, FACTS, "fp32", {})] == [path]
