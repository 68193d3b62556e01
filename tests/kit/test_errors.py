"""Every error says rule, value and fix."""

import inspect
import pickle

import pytest

import moebius.kit.errors
from moebius.kit.errors import ArgumentError, DataError, MoebiusError, RecipeError, StudyError, TrainingError

ALL = [value for _, value in inspect.getmembers(moebius.kit.errors, inspect.isclass) if issubclass(value, Exception)]


def test_one_tree():
    assert len(ALL) > 5
    assert all(issubclass(error, MoebiusError) for error in ALL)
    assert issubclass(ArgumentError, ValueError)


def test_rule_value_and_fix():
    error = ArgumentError("hidden", "needs at least one width", [], "hidden=[64]")
    assert str(error) == "hidden: needs at least one width, got []\n  fix: hidden=[64]"
    assert error.message == "hidden: needs at least one width, got []"
    assert str(ArgumentError("lr", "must be above 0", -1.0)) == "lr: must be above 0, got -1.0"


def test_the_path_is_put_before_the_argument():
    error = ArgumentError("hidden", "needs at least one width", [], "hidden=[64]").inside("gate").inside("model")
    assert str(error) == "model.gate.hidden: needs at least one width, got []\n  fix: hidden=[64]"
    assert (error.argument, error.rule, error.value) == ("model.gate.hidden", "needs at least one width", [])


def test_all_problems_of_a_recipe_are_lines_that_begin_with_its_name():
    error = RecipeError("mine.yaml", ["data: missing", "seeds: must be above 0"], "seeds: 1")
    assert str(error) == "mine.yaml: data: missing\nmine.yaml: seeds: must be above 0\n  fix: seeds: 1"
    assert error.problems == ("data: missing", "seeds: must be above 0")


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError("hidden", "needs at least one width", [], "hidden=[64]"),
        RecipeError("mine.yaml", ["data: missing"], "add it"),
        DataError("row 3: broken", "take it out"),
        StudyError("busy"),
        TrainingError("loss is NaN at step 3", "a smaller lr"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_whole_out_of_worker_processes(error):
    unpickled = pickle.loads(pickle.dumps(error))
    assert type(unpickled) is type(error)
    assert str(unpickled) == str(error)
    assert vars(unpickled) == vars(error)
