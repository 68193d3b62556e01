import copy

import pytest

from moebius.lab.checks.problems import Problem
from moebius.lab.recipe.overrides import assign_value, parse_override

TREE = {
    "training": {"epochs": 2},
    "data": {"sets": [{"kind": "digits"}]},
    "variants": {"a": {}, "2": {}},
    "presets": {},
}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("training.epochs=2", ("training", "epochs"), 2),
        ("training.optimizer.lr=1e-3", ("training", "optimizer", "lr"), 0.001),
        ("variants.hidden.gate.hidden=[128]", ("variants", "hidden", "gate", "hidden"), [128]),
        ("model.gate={kind: mlp, hidden: [8]}", ("model", "gate"), {"kind": "mlp", "hidden": [8]}),
        ("data.train_rows=", ("data", "train_rows"), None),
        ("data.sets[0].name=a=b", ("data", "sets", 0, "name"), "a=b"),
        ("data.sets.0.name=x", ("data", "sets", 0, "name"), "x"),
    ],
)
def test_an_override_reads_as(text, path, value):
    assert parse_override(text) == (path, value)


def test_what_is_no_override_says_so():
    assert parse_override("training.epochs").line() == (
        "override: needs the form key=value, got 'training.epochs'; such as training.epochs=2"
    )
    assert parse_override("=2").path == ("override",)
    assert "expected ',' or ']'" in parse_override("a=[1").rule


@pytest.mark.parametrize(
    ("path", "value", "made"),
    [
        (("training", "epochs"), 3, ("training", "epochs")),
        (("data", "sets", 0, "kind"), "x", ("data", "sets", 0, "kind")),
        (("variants", "a", "gate", "hidden"), [1], ("variants", "a", "gate")),
        (("variants", 2, "gate"), {}, ("variants", 2, "gate")),
        (("report", "expert_count", "marks"), [], ("report",)),
    ],
)
def test_assigning_sets_the_value_and_names_what_it_made(path, value, made):
    tree = copy.deepcopy(TREE)
    assert assign_value(tree, path, value) == made
    for key in path:
        tree = tree[key if isinstance(tree, list) else str(key)]
    assert tree == value


def test_the_value_is_copied():
    value = [1]
    tree = {}
    assign_value(tree, ("a",), value)
    value.append(2)
    assert tree == {"a": [1]}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("variants", "b", "gate"), "variants.b: no such variant, got 1; one of a, 2"),
        (("variants", "b"), "variants.b: no such variant, got 1; one of a, 2"),
        (("training", "epochs", "x"), "training.epochs.x: training.epochs holds a single value and has no keys, got 2"),
        (("data", "sets", 1, "name"), "data.sets[1]: the list data.sets has positions 0 to 0, got 1"),
        (("data", "sets", "name"), "data.sets.name: the list data.sets has positions 0 to 0, got 'name'"),
        (("presets", "quick"), "presets.quick: a preset's values cannot be overridden, got 1; override the key itself"),
    ],
)
def test_what_stands_in_the_way_is_named(path, line):
    problem = assign_value(copy.deepcopy(TREE), path, 1)
    assert isinstance(problem, Problem)
    assert problem.line() == line
