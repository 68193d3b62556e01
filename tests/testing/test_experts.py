"""Each check of experts finds the expert that breaks it."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.testing import check_expert
from moebius.testing.experts import CHECKS

COUNT = itertools.count(1)


class DropsRows(mb.experts.Linear):
    def forward(self, x):
        return super().forward(x)[1:]


class WrongInHalf(mb.experts.Linear):
    def forward(self, x):
        return super().forward(x) + (x.dtype == torch.bfloat16)


class ByPlace(mb.experts.Linear):
    def forward(self, x):
        return super().forward(x).cumsum(0)


class InPlace(mb.experts.Linear):
    def forward(self, x):
        x += 1
        return super().forward(x)


class Counts(mb.experts.Linear):
    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.register_buffer("forwards", torch.zeros(()))

    def forward(self, x):
        self.forwards += 1
        return super().forward(x)


class WithoutInput(mb.experts.Linear):
    def forward(self, x):
        return super().forward(x.detach())


class WrongGradient(mb.experts.Linear):
    def forward(self, x):
        y = super().forward(x)
        return 2 * y - y.detach()


class Forgets(mb.experts.Linear):
    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.scale = next(COUNT)

    def forward(self, x):
        return self.scale * super().forward(x)


class TakesAnything(nn.Module):
    def __init__(self, features: int):
        super().__init__()


class Pooled(nn.Module):
    def __init__(self, size: int, classes: int):
        super().__init__()
        self.linear = nn.Linear(size * size, classes)

    def forward(self, x):
        return self.linear(F.adaptive_avg_pool2d(x, 8).flatten(1))


class OtherByRows(mb.experts.Linear):
    def rowwise(self, x, layer):
        return layer(self.linear, x.flatten(1))

    def forward(self, x):
        return super().forward(x).tanh()


SHARED = nn.Linear(64, 64)


class Shared(mb.experts.Linear):
    """Its first layer is that of all such experts: no expert can be frozen alone."""

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.shared = SHARED.requires_grad_(True)

    def rowwise(self, x, layer):
        return layer(self.linear, layer(self.shared, x.flatten(1)))


BROKEN = {
    "gives_one_output_for_each_row": (DropsRows, r"outputs of shape \(6, 5\) for 7 rows, needs \(7, 5\)"),
    "gives_the_same_in_bfloat16": (WrongInHalf, "other outputs in bf16 than in float32"),
    "permuting_rows_permutes_outputs": (ByPlace, "treats rows by their place"),
    "gives_the_same_twice_in_eval_and_leaves_its_input": (InPlace, "changes its input in place"),
    "keeps_its_state_where_there_are_no_rows": (Counts, "changes its state in a batch without rows: forwards"),
    "passes_a_gradient_to_every_parameter_and_the_input": (WithoutInput, "passes no gradient to the input"),
    "has_the_gradients_of_finite_differences": (WrongGradient, "other gradients than finite differences"),
    "gives_the_same_once_loaded": (Forgets, "other outputs once its state dict is loaded"),
    "refuses_impossible_facts_by_name": (TakesAnything, "takes features=0 and raises nothing"),
    "refuses_images_of_another_size": (Pooled, r"takes images of shape \(2, 1, 9, 7\) and raises nothing"),
    "stacked_is_the_loop": (OtherByRows, "differs where 1 run at once on 6 rows"),
    "stacked_trains_no_frozen_expert": (Shared, "does not train every parameter where several run at once"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_expert_is_named(breaks, name):
    breaks(CHECKS, name, "experts", *BROKEN[name])


class Noisy(mb.experts.Linear):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 5)
        nn.init.ones_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x):
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("name", "component", "match"),
    [
        ("gives_the_same_twice_in_eval_and_leaves_its_input", Noisy, "other outputs for the same rows in eval"),
        ("gives_the_same_once_loaded", Fixed, "the same outputs whatever torch's generator draws"),
    ],
)
def test_the_second_half_of_a_rule(breaks, name, component, match):
    breaks(CHECKS, name, "experts", component, match)


def test_an_expert_of_rows_of_ones_own():
    check_expert(mb.experts.FFN, torch.rand(4, 6), hidden=3)
