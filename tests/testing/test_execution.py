"""Each check of executions finds the execution that breaks it."""

import pytest
import torch

import moebius as mb
from moebius.testing import check_execution
from moebius.testing.execution import CHECKS, compare_with_loop

Loop = mb.execution.Loop


class NoExecution:
    pass


class Doubled(Loop):
    def run(self, pool, routing, x):
        return 2 * super().run(pool, routing, x)


class WrongSum(Loop):
    def sum(self, pool, routing, x):
        return mb.WeightedSum()(self.run(pool, routing, x), routing) + 1


class WrongGradient(Loop):
    def run(self, pool, routing, x):
        return super().run(pool, routing, x.detach()) + 0 * x.sum()


class RefusesAll(Loop):
    def refuses(self, pool, routing, x):
        return "needs something else"


class RefusesWithoutReason(Loop):
    def refuses(self, pool, routing, x):
        return "is not made for it"


BROKEN = {
    "is_an_execution": (NoExecution, "is no moebius.Execution"),
    "gives_the_outputs_and_gradients_of_the_loop_for_a_selection": (WrongSum, r"differs from the loop for 5 rows of 3"),
    "gives_the_outputs_and_gradients_of_the_loop_for_all_pairs": (RefusesAll, "refuses experts of all kinds"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_execution_is_named(breaks, name):
    breaks(CHECKS, name, "execution", *BROKEN[name])


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("component", "match"),
    [
        (Doubled, "differs from the loop for 5 rows of 3 experts .*: y is wrong by"),
        (WrongGradient, "differs from the loop for 5 rows of 3 experts .*: x is wrong by"),
        (RefusesWithoutReason, "refuses experts without a reason that begins with needs or may"),
    ],
)
def test_in_what_it_differs(breaks, component, match, number):
    breaks(CHECKS, CHECKS[number].__name__, "execution", component, match)


def test_it_says_whether_it_ran():
    choice = (2, 2, ([0, 1], [1, 0], [True, True]))
    assert compare_with_loop(Loop(), "linear", torch.float64, choice)
    assert not compare_with_loop(RefusesAll(), "linear", torch.float64, choice)


def test_one_that_breaks_nothing():
    check_execution(Loop)
