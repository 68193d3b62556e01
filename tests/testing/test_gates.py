"""Each check of gates finds the gate that breaks it."""

import itertools

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.testing import check_gate
from moebius.testing.gates import CHECKS

COUNT = itertools.count(1)


class Gate(nn.Module):
    """A gate that breaks nothing."""

    def __init__(self, features: int, experts: int):
        super().__init__()
        for name, value in (("features", features), ("experts", experts)):
            if value < 1:
                raise mb.ArgumentError(name, "needs a whole number of at least 1", value)
        self.linear = nn.Linear(features, experts)

    def forward(self, x):
        return self.linear(x.flatten(1))


class DropsRows(Gate):
    def forward(self, x):
        return super().forward(x)[:-1]


class TwoAtLeast(Gate):
    def __init__(self, features: int, experts: int):
        super().__init__(features, max(experts, 2))


class WrongInHalf(Gate):
    def forward(self, x):
        return super().forward(x) + (x.dtype == torch.bfloat16)


class ByPlace(Gate):
    def forward(self, x):
        return super().forward(x).cumsum(0)


class Noisy(Gate):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


class OneValue(Gate):
    gives_aux = True

    def forward(self, x):
        scores = super().forward(x)
        return scores, {"kl": scores.sum(-1)[:1]}


class Counts(Gate):
    def __init__(self, features: int, experts: int):
        super().__init__(features, experts)
        self.register_buffer("forwards", torch.zeros(()))

    def forward(self, x):
        self.forwards += 1
        return super().forward(x)


class InPlace(Gate):
    def forward(self, x):
        x += 1
        return super().forward(x)


class Unused(Gate):
    def __init__(self, features: int, experts: int):
        super().__init__(features, experts)
        self.temperature = nn.Parameter(torch.ones(()))


class WrongGradient(Gate):
    def forward(self, x):
        scores = super().forward(x)
        return 2 * scores - scores.detach()


class Forgets(Gate):
    def __init__(self, features: int, experts: int):
        super().__init__(features, experts)
        self.scale = next(COUNT)

    def forward(self, x):
        return self.scale * super().forward(x)


class TakesAnything(nn.Module):
    def __init__(self, experts: int):
        super().__init__()
        self.experts = experts


BROKEN = {
    "scores_every_row_for_every_expert": (DropsRows, r"gives scores of shape \(6, 3\), needs \(7, 3\)"),
    "scores_a_single_expert": (TwoAtLeast, r"scores of a single expert of shape \(4, 2\), needs \(4, 1\)"),
    "scores_the_same_in_bfloat16": (WrongInHalf, "other scores in bf16 than in float32"),
    "permuting_rows_permutes_scores": (ByPlace, "scores rows by their place"),
    "scores_the_same_twice_in_eval": (Noisy, r"other scores for the same rows in eval\n  fix: noise only while"),
    "gives_values_beside_scores_for_each_row": (OneValue, "gives 1 values of 'kl' for 7 rows"),
    "keeps_its_state_where_there_are_no_rows": (Counts, "changes its state in a batch without rows: forwards"),
    "leaves_its_input_as_it_was": (InPlace, "changes its input in place"),
    "passes_a_gradient_to_every_parameter": (Unused, "passes no gradient to temperature"),
    "has_the_gradients_of_finite_differences": (WrongGradient, "other gradients than finite differences"),
    "scores_the_same_once_loaded": (Forgets, "scores differently once its state dict is loaded"),
    "refuses_impossible_facts_by_name": (TakesAnything, r"takes experts=0 and raises nothing\n  fix: raise moebius"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_gate_is_named(breaks, name):
    breaks(CHECKS, name, "gates", *BROKEN[name])


def test_a_gate_that_breaks_nothing():
    check_gate(Gate)


class ByUser(nn.Module):
    """A gate of token numbers with side information."""

    def __init__(self, experts: int):
        super().__init__()
        if experts < 1:
            raise mb.ArgumentError("experts", "needs a whole number of at least 1", experts)
        self.tokens, self.users = nn.Embedding(20, experts), nn.Embedding(3, experts)

    def forward(self, x, context):
        return self.tokens(x).sum(1) + self.users(context["user"])


def test_rows_and_side_information_of_ones_own():
    numbers = torch.arange(40).view(10, 4) % 20
    with pytest.raises(LookupError) as caught:
        check_gate(ByUser, numbers, experts=2)
    assert caught.value.__notes__ == [
        "gates ByUser, in the check scores_every_row_for_every_expert: Scores are (T, E), in the precision of the rows "
        "and never NaN, for 7 rows, one and none."
    ]
    check_gate(ByUser, numbers, {"user": torch.arange(10) % 3}, experts=2)
