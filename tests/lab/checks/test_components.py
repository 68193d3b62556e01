"""The checks are generic, so they are tried on components of all rooms and on signatures made up for the purpose."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from moebius.kit.registry import kinds
from moebius.lab.checks.components import check_amount, check_component, check_keywords


def lines(problems):
    return [problem.line() for problem in problems]


@pytest.mark.parametrize(
    ("room", "value", "line"),
    [
        ("gates", {"kind": "linaer"}, "x.kind: no such kind, got 'linaer'; did you mean linear?"),
        ("gates", "linear", "x: needs a mapping with a kind, got 'linear'; such as {kind: linear}"),
        ("gates", {"kind": ["mlp"]}, "x.kind: no such kind, got ['mlp']; did you mean mlp?"),
        ("gates", {"kind": "mlp", "hiden": [4]}, "x.hiden: mlp has no such keyword, got [4]; did you mean hidden?"),
        ("gates", {"kind": "mlp", "hidden": 4}, "x.hidden: needs a list of whole numbers, got 4"),
        ("gates", {"kind": "mlp", "hidden": ["4"]}, "x.hidden: needs a list of whole numbers, got ['4']"),
        ("gates", {"kind": "linear", "bias": "yes"}, "x.bias: needs true or false, got 'yes'"),
        ("schedules", {"kind": "constant"}, "x.value: is missing, constant needs it"),
        ("losses", {"kind": "batch_entropy", "x": 1}, "x.x: batch_entropy has no such keyword, got 1; one of weight"),
    ],
)
def test_a_wrong_component_is_named(room, value, line):
    besides = ("weight",) if room == "losses" else ()
    assert lines(check_component(room, value, ("x",), besides)) == [line]


def test_without_a_kind_all_are_named():
    fix = "one of " + ", ".join(kinds("gates"))
    assert lines(check_component("gates", {"hidden": [4]}, ("x",))) == [f"x.kind: is missing; {fix}"]
    assert lines(check_component("gates", None, ("x",)))[0].startswith("x: needs a mapping with a kind, got null; such")


@pytest.mark.parametrize(
    ("room", "value"),
    [
        ("gates", {"kind": "mlp"}),
        ("gates", {"kind": "mlp", "hidden": [4, 4], "features": 7}),
        ("experts", {"kind": "conv", "filters": [4]}),
        ("losses", {"kind": "batch_entropy"}),
        ("schedules", {"kind": "linear", "start": 0, "end": 1e-3, "epochs": 2}),
        ("data.sources", {"kind": "digits"}),
    ],
)
def test_a_right_component_passes(room, value):
    assert check_component(room, value, ("x",)) == []


def test_constructing_asks_the_constructor():
    value = {"kind": "step", "start": 1, "factor": 0, "every": 1}
    assert check_component("schedules", value, ("x",)) == []
    assert lines(check_component("schedules", value, ("x",), construct=True)) == [
        "x.factor: needs a number above 0, got 0; factor: 0.5"
    ]


def made_up(
    whole: int,
    number: float = 1.0,
    text: str = "",
    choice: Literal["a", "b"] = "a",
    maybe: int | None = None,
    many: tuple[float, ...] = (),
    two: tuple[int, int] = (0, 0),
    rates: Sequence[float | torch.Tensor] = (),
    place: Path | None = None,
    function: Callable[[int], int] | None = None,
    anything: Any = None,
):
    """A signature with one parameter of each type that is checked."""


@pytest.mark.parametrize(
    ("name", "good", "bad", "rule"),
    [
        ("whole", [0, -3], [1.5, True, "1", None, [1]], "needs a whole number"),
        ("number", [1, 1.5], [True, "1.5", None], "needs a number"),
        ("text", ["", "a"], [1, None], "needs text"),
        ("choice", ["a", "b"], ["c", 1, None], "needs one of a, b"),
        ("maybe", [1, None], ["1", 1.5], "needs a whole number or null"),
        ("many", [[], [1, 2.5]], [1, ["a"], None], "needs a list of numbers"),
        ("two", [[1, 2]], [[1], [1, 2, 3], 1], "needs a list of 2 values"),
        ("rates", [[], [0.5]], [0.5, ["a"]], "needs a list"),
        ("place", ["a/b", None], [1], "needs a path or null"),
        ("anything", [1, "a", None, [1]], [], ""),
    ],
)
def test_types_are_read_from_the_signature(name, good, bad, rule):
    for value in good:
        assert check_keywords(made_up, {"whole": 1, name: value}, ()) == []
    for value in bad:
        problems = check_keywords(made_up, {"whole": 1, name: value}, ())
        assert [(problem.path, problem.rule) for problem in problems] == [((name,), rule)]


def test_facts_may_be_left_out_and_other_parameters_not():
    def component(features: int, depth: int):
        """Takes a fact of the data and one more."""

    assert [problem.path for problem in check_keywords(component, {}, ())] == [("depth",)]


def test_any_keyword_passes_where_the_component_takes_any():
    def component(**options: int):
        """Takes all."""

    assert check_keywords(component, {"x": "y"}, ()) == []


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (True, "x: needs a number or a schedule, got true; such as {kind: cosine, start: 1e-3, end: 0, epochs: 20}"),
        (-1, "x: needs a number of at least 0, got -1"),
        ({"kind": "cosin"}, "x.kind: no such kind, got 'cosin'; did you mean cosine?"),
        (
            {"kind": "linear", "start": 0, "end": 1, "epochs": 0},
            "x.epochs: needs a positive number of epochs, got 0; epochs: 1",
        ),
    ],
)
def test_a_wrong_amount_is_named(value, line):
    assert lines(check_amount(value, ("x",), least=0)) == [line]


def test_a_right_amount_passes():
    assert check_amount(-1, ("x",)) == []
    assert check_amount({"kind": "linear", "start": 0, "end": 1, "epochs": 2}, ("x",), least=0) == []
