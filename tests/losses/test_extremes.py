"""Where losses are smallest and largest, as their docstrings say."""

from dataclasses import dataclass, replace
from math import inf, log
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.registry import find
from moebius.routers.soft import Soft

E = 4
LARGEST_VARIANCE = (E - 1) / E**2  # of a distribution with all probability on one of E experts


def to_double(values):
    return torch.tensor(values, dtype=torch.float64)


def routing(probs, **aux):
    return replace(Soft()(to_double(probs).log()), aux={name: to_double(value) for name, value in aux.items()})


def relu_routing(activations):
    return Soft(normalisation="relu")(to_double(activations))


ONE_EXPERT_EACH = torch.eye(E).tolist()
ALL_ON_ONE = [[1.0, 0.0, 0.0, 0.0]] * E
UNIFORM = [[0.25] * E] * E
DIAGONAL_IS_BEST = 3 * (1 - torch.eye(E, dtype=torch.float64))

# Logits (T, E, C) by which all experts give one class all probability.
ONE_CLASS = to_double([0.0, -inf]).expand(E, E, 2)

ONE_EACH, COLLAPSED, SPREAD = routing(ONE_EXPERT_EACH), routing(ALL_ON_ONE), routing(UNIFORM)


@dataclass(frozen=True)
class Extremes:
    """The ends of a loss's range, and the arguments of the loss that lie there."""

    lowest: float
    minima: list[tuple[Any, ...]]
    highest: float
    maxima: list[tuple[Any, ...]]


TABLE = {
    "batch_entropy": Extremes(-log(E), [(ONE_EACH,), (SPREAD,)], 0.0, [(COLLAPSED,)]),
    "batch_variance": Extremes(0.0, [(ONE_EACH,), (SPREAD,)], LARGEST_VARIANCE, [(COLLAPSED,)]),
    "batch_variance_literal": Extremes(-LARGEST_VARIANCE, [(COLLAPSED,)], 0.0, [(ONE_EACH,), (SPREAD,)]),
    "sample_entropy": Extremes(0.0, [(ONE_EACH,), (COLLAPSED,)], log(E), [(SPREAD,)]),
    "sample_variance": Extremes(-LARGEST_VARIANCE, [(ONE_EACH,), (COLLAPSED,)], 0.0, [(SPREAD,)]),
    "sample_variance_literal": Extremes(0.0, [(SPREAD,)], LARGEST_VARIANCE, [(ONE_EACH,), (COLLAPSED,)]),
    "uniform_kl": Extremes(0.0, [(ONE_EACH,), (SPREAD,)], log(E), [(COLLAPSED,)]),
    "mutual_information": Extremes(-log(E), [(ONE_EACH,)], 0.0, [(COLLAPSED,), (SPREAD,)]),
    "importance": Extremes(0.0, [(ONE_EACH,), (SPREAD,)], E - 1, [(COLLAPSED,)]),
    "load": Extremes(
        0.0,
        [(routing(UNIFORM, load=ONE_EXPERT_EACH),), (routing(ALL_ON_ONE, load=UNIFORM),)],
        E - 1,
        [(routing(UNIFORM, load=ALL_ON_ONE),)],
    ),
    # 0 needs a router that sends all rows to an expert of probability 0; balance gives 1.
    "switch_balance": Extremes(0.0, [(routing(ALL_ON_ONE, assigned=[0.0, 0.0, 0.0, 4.0]),)], E, [(COLLAPSED,)]),
    "z_loss": Extremes(0.0, [(ONE_EACH,), (SPREAD,)], inf, []),
    "l1": Extremes(0.0, [(relu_routing([[-1.0, 0.0], [0.0, -2.0]]),)], inf, []),
    "expected_l0": Extremes(
        0.0,
        [(routing(UNIFORM, open=[[0.0] * E] * E),)],
        1.0,
        [(routing(UNIFORM, open=[[1.0] * E] * E),)],
    ),
    "selector_entropy": Extremes(
        0.0,
        [(routing(UNIFORM, selectors=[ONE_EXPERT_EACH, ALL_ON_ONE]),)],
        E * log(E),
        [(routing(UNIFORM, selectors=[UNIFORM, UNIFORM]),)],
    ),
    "negative_elbo": Extremes(0.0, [(routing(UNIFORM, reconstruction=[0.0] * E, kl=[0.0] * E),)], inf, []),
    "expectation": Extremes(
        0.0, [(ONE_EACH, DIAGONAL_IS_BEST)], 3.0, [(routing(ONE_EXPERT_EACH[::-1]), DIAGONAL_IS_BEST)]
    ),
    "best_expert": Extremes(0.0, [(ONE_EACH, DIAGONAL_IS_BEST)], inf, []),
    "best_fit": Extremes(0.0, [(SPREAD, DIAGONAL_IS_BEST)], inf, []),
    "distillation": Extremes(0.0, [(replace(SPREAD, outputs=ONE_CLASS), DIAGONAL_IS_BEST)], inf, []),
}


@pytest.mark.parametrize("kind", TABLE)
def test_extremes_lie_where_its_docstring_says(kind):
    loss, extremes = find("losses", kind), TABLE[kind]
    for arguments in extremes.minima:
        assert loss(*arguments).item() == pytest.approx(extremes.lowest, abs=1e-12)
    for arguments in extremes.maxima:
        assert loss(*arguments).item() == pytest.approx(extremes.highest, abs=1e-12)


@given(scores=st.lists(st.lists(st.floats(-30, 30), min_size=E, max_size=E), min_size=1, max_size=6))
def test_all_stay_in_their_range(complete_routing, call_loss, scores):
    scores = to_double(scores)
    losses = scores.abs().clamp(max=3)
    for kind, extremes in TABLE.items():
        value = call_loss(kind, complete_routing(kind, scores, losses), losses).item()
        assert extremes.lowest - 1e-12 <= value <= extremes.highest + 1e-12, kind


# Where descent ends elsewhere than at the minimum.
ENDS = {
    "switch_balance": 1.0,  # f has no gradient: descent ends at balance, or a little below
    "mutual_information": -0.85 * log(E),  # a row that has decided stays where it is, even if another expert has no row
    "distillation": log(2),  # experts agree, on any distribution
}


@pytest.mark.parametrize("kind", TABLE)
def test_descent_arrives_at_the_minimum(kind, complete_routing, call_loss):
    random = torch.Generator().manual_seed(0)
    # Most rows prefer the last expert at first.
    scores = (torch.randn(8, E, generator=random, dtype=torch.float64) + torch.arange(E)).requires_grad_()
    free = torch.randn(8, E, generator=random, dtype=torch.float64).requires_grad_()
    fixed = free.detach().abs() - free.detach().abs().amin(1, keepdim=True)

    def value(expert_losses):
        return call_loss(kind, complete_routing(kind, scores, expert_losses), expert_losses)

    # Losses of the gate are minimised for fixed losses of the experts, whose minimum would otherwise be all zeros.
    (gradient,) = torch.autograd.grad(value(free.square()), scores, allow_unused=True)
    trains_gate = gradient is not None and bool(gradient.any())
    optimizer = torch.optim.Adam([scores, free], lr=0.2)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = value(fixed if trains_gate else free.square())
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    end = ENDS.get(kind, TABLE[kind].lowest) + 0.005
    assert values[0] > end >= values[-1]
