"""Each check of combines finds the combine that breaks it."""

import pytest
import torch

import moebius as mb
from moebius.testing.combine import CHECKS

Sum = mb.WeightedSum


class DropsRows(Sum):
    def __call__(self, values, routing):
        return super().__call__(values, routing)[1:]


class NoDistribution(mb.LogMixture):
    def __call__(self, values, routing):
        return super().__call__(values, routing) + 1


class DenseAlone(Sum):
    def __call__(self, values, routing):
        y = super().__call__(values, routing)
        return y if routing.selection is None else 2 * y


class CountsDropped(Sum):
    def __call__(self, values, routing):
        y = super().__call__(values, routing)
        return y if routing.selection is None else y + values.mean()


class ByPlace(Sum):
    def __call__(self, values, routing):
        return super().__call__(values, routing).cumsum(0)


class FirstIsFavoured(Sum):
    def __call__(self, values, routing):
        y = super().__call__(values, routing)
        return y if routing.selection is not None else y + values[:, 0]


class Total(Sum):
    def __call__(self, values, routing):
        return super().__call__(values, routing) * routing.experts


class WrongGradient(Sum):
    def __call__(self, values, routing):
        y = super().__call__(values, routing)
        return 2 * y - y.detach()


BROKEN = {
    "gives_one_output_for_each_row": (DropsRows, r"an output of shape \(5, 5\), needs \(6, 5\)"),
    "declares_whether_it_gives_log_probabilities": (NoDistribution, "whose exponentials do not sum to 1"),
    "gives_the_same_for_all_outputs_and_for_chosen_ones": (DenseAlone, "another output for a selection of all pairs"),
    "leaves_out_dropped_assignments": (CountsDropped, "counts the outputs of dropped assignments"),
    "permuting_rows_permutes_outputs": (ByPlace, "treats rows by their place"),
    "does_not_depend_on_the_order_of_experts": (FirstIsFavoured, "depends on the order of the experts"),
    "gives_equal_outputs_whatever_their_weights": (Total, "another output for equal experts than for one of them"),
    "has_the_gradients_of_finite_differences": (WrongGradient, "other gradients than finite differences for all"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_combine_is_named(breaks, name):
    breaks(CHECKS, name, "combine", *BROKEN[name])


def test_a_combine_that_declares_nothing(breaks):
    def bare():
        return lambda values, routing: torch.zeros(len(routing.weights), values.shape[-1])

    name = "declares_whether_it_gives_log_probabilities"
    breaks(CHECKS, name, "combine", bare, "declares gives_log_probabilities = None, no truth value")
