import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.checks.problems import Problem, from_argument_error, parse_path, path_text, shortened, unique_problems


def test_a_problem_is_one_line():
    problem = Problem(("variants", "hidden", "gate", "hidden"), "needs at least one width", [], "hidden=[64]")
    assert problem.line() == "variants.hidden.gate.hidden: needs at least one width, got []; hidden=[64]"
    assert problem.at(("x",)).line(" (from x=[])") == "x: needs at least one width, got [] (from x=[]); hidden=[64]"
    assert Problem(("name",), "is missing").line() == "name: is missing"
    assert Problem((), "needs a mapping", 3).line() == "recipe: needs a mapping, got 3"


@pytest.mark.parametrize("path", [("a",), ("a", "b"), ("data", "sets", 0, "name"), ("experts", 1)])
def test_a_path_reads_back(path):
    assert parse_path(path_text(path)) == path


def test_values_are_shown_as_yaml_has_them_and_shortened():
    assert [shortened(value) for value in (None, True, False, 1, 1.5, "a", [])] == [
        "null", "true", "false", "1", "1.5", "'a'", "[]"
    ]  # fmt: skip
    assert shortened("x" * 200) == "'" + "x" * 88 + "…"


def test_a_constructor_s_error_keeps_its_parts():
    error = ArgumentError("hidden", "needs at least one width", [], "hidden=[64]").inside("experts.1")
    problem = from_argument_error(error, ("model",))
    assert problem == Problem(("model", "experts", 1, "hidden"), "needs at least one width", [], "hidden: [64]")


def test_shared_problems_count_once():
    first, second = Problem(("a",), "x", 1), Problem(("b",), "x", 1)
    assert unique_problems([first, second, Problem(("a",), "x", 2)]) == [first, second]
