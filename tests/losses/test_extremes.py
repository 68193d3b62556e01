"""Where each loss is smallest and largest, as its docstring says; a new one has to come with a line of the table."""

from dataclasses import dataclass, replace
from math import inf, log
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

E = 4
MOST = (E - 1) / E**2  # the variance of a distribution with all on one of E experts


def whole(values):
    return torch.tensor(values, dtype=torch.float64)


def routing(probs, **aux):
    return replace(Soft()(whole(probs).log()), aux={name: whole(value) for name, value in aux.items()})


def gate(activations):
    return Soft(normalisation="relu")(whole(activations))


EACH_ITS_OWN = torch.eye(E).tolist()
ALL_THE_SAME = [[1.0, 0.0, 0.0, 0.0]] * E
UNDECIDED = [[0.25] * E] * E
ITS_OWN_IS_BEST = 3 * (1 - torch.eye(E, dtype=torch.float64))

# Logits (T, E, C) with which all experts are sure of the same class.
SURE = whole([0.0, -inf]).expand(E, E, 2)

OWN, SAME, SPREAD = routing(EACH_ITS_OWN), routing(ALL_THE_SAME), routing(UNDECIDED)


@dataclass(frozen=True)
class Extremes:
    """The ends of a range, and what a loss has to be called with to be there."""

    lowest: float
    minima: list[tuple[Any, ...]]
    highest: float
    maxima: list[tuple[Any, ...]]


TABLE = {
    "batch_entropy": Extremes(-log(E), [(OWN,), (SPREAD,)], 0.0, [(SAME,)]),
    "batch_variance": Extremes(0.0, [(OWN,), (SPREAD,)], MOST, [(SAME,)]),
    "batch_variance_literal": Extremes(-MOST, [(SAME,)], 0.0, [(OWN,), (SPREAD,)]),
    "sample_entropy": Extremes(0.0, [(OWN,), (SAME,)], log(E), [(SPREAD,)]),
    "sample_variance": Extremes(-MOST, [(OWN,), (SAME,)], 0.0, [(SPREAD,)]),
    "sample_variance_literal": Extremes(0.0, [(SPREAD,)], MOST, [(OWN,), (SAME,)]),
    "uniform_kl": Extremes(0.0, [(OWN,), (SPREAD,)], log(E), [(SAME,)]),
    "mutual_information": Extremes(-log(E), [(OWN,)], 0.0, [(SAME,), (SPREAD,)]),
    "importance": Extremes(0.0, [(OWN,), (SPREAD,)], E - 1, [(SAME,)]),
    "load": Extremes(
        0.0,
        [(routing(UNDECIDED, load=EACH_ITS_OWN),), (routing(ALL_THE_SAME, load=UNDECIDED),)],
        E - 1,
        [(routing(UNDECIDED, load=ALL_THE_SAME),)],
    ),
    # 0 takes a router that sends rows where the gate says nothing; balance is 1.
    "switch_balance": Extremes(0.0, [(routing(ALL_THE_SAME, assigned=[0.0, 0.0, 0.0, 4.0]),)], E, [(SAME,)]),
    "z_loss": Extremes(0.0, [(OWN,), (SPREAD,)], inf, []),
    "l1": Extremes(0.0, [(gate([[-1.0, 0.0], [0.0, -2.0]]),)], inf, []),
    "expected_l0": Extremes(
        0.0,
        [(routing(UNDECIDED, open=[[0.0] * E] * E),)],
        1.0,
        [(routing(UNDECIDED, open=[[1.0] * E] * E),)],
    ),
    "selector_entropy": Extremes(
        0.0,
        [(routing(UNDECIDED, selectors=[EACH_ITS_OWN, ALL_THE_SAME]),)],
        E * log(E),
        [(routing(UNDECIDED, selectors=[UNDECIDED, UNDECIDED]),)],
    ),
    "negative_elbo": Extremes(0.0, [(routing(UNDECIDED, reconstruction=[0.0] * E, kl=[0.0] * E),)], inf, []),
    "expectation": Extremes(0.0, [(OWN, ITS_OWN_IS_BEST)], 3.0, [(routing(EACH_ITS_OWN[::-1]), ITS_OWN_IS_BEST)]),
    "best_expert": Extremes(0.0, [(OWN, ITS_OWN_IS_BEST)], inf, []),
    "best_fit": Extremes(0.0, [(SPREAD, ITS_OWN_IS_BEST)], inf, []),
    "distillation": Extremes(0.0, [(replace(SPREAD, outputs=SURE), ITS_OWN_IS_BEST)], inf, []),
}


def test_every_loss_is_in_the_table():
    assert set(TABLE) == set(kinds("losses"))


@pytest.mark.parametrize("kind", TABLE)
def test_extremes_lie_where_its_docstring_says(kind):
    loss, extremes = find("losses", kind), TABLE[kind]
    for arguments in extremes.minima:
        assert loss(*arguments).item() == pytest.approx(extremes.lowest, abs=1e-12)
    for arguments in extremes.maxima:
        assert loss(*arguments).item() == pytest.approx(extremes.highest, abs=1e-12)


def arguments_of(kind, scores, expert_losses):
    """What the loss is called with for free scores, and free losses and outputs of the experts."""
    router = Soft(normalisation="relu" if kind == "l1" else "softmax")
    aux = {"load": scores.sigmoid(), "open": scores.sigmoid(), "selectors": scores.softmax(-1).unsqueeze(1)}
    aux |= {"reconstruction": scores.square().sum(-1), "kl": scores.square().mean(-1)}
    outputs = torch.stack([expert_losses, -expert_losses], -1)
    compared = (expert_losses,) if len(TABLE[kind].minima[0]) == 2 else ()
    return replace(router(scores), aux=aux, outputs=outputs), *compared


@given(scores=st.lists(st.lists(st.floats(-30, 30), min_size=E, max_size=E), min_size=1, max_size=6))
def test_all_stay_in_their_range(scores):
    scores = whole(scores)
    losses = scores.abs().clamp(max=3)
    for kind, extremes in TABLE.items():
        found = find("losses", kind)(*arguments_of(kind, scores, losses)).item()
        assert extremes.lowest - 1e-12 <= found <= extremes.highest + 1e-12, kind


# Where descent ends elsewhere than at the minimum.
ENDS = {
    "switch_balance": 1.0,  # f has no gradient: balance, or a little below
    "mutual_information": -0.85 * log(E),  # a row that has decided stays where it is, though another lacks one
    "distillation": log(2),  # experts that agree, not experts that are sure
}


@pytest.mark.parametrize("kind", TABLE)
def test_descent_arrives_at_the_minimum(kind):
    random = torch.Generator().manual_seed(0)
    # Most rows prefer the last expert at first.
    scores = (torch.randn(8, E, generator=random, dtype=torch.float64) + torch.arange(E)).requires_grad_()
    free = torch.randn(8, E, generator=random, dtype=torch.float64).requires_grad_()
    fixed = free.detach().abs() - free.detach().abs().amin(1, keepdim=True)
    trains_experts = kind in ("best_fit", "distillation")
    optimizer = torch.optim.Adam([scores, free], lr=0.2)
    values = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = find("losses", kind)(*arguments_of(kind, scores, free.square() if trains_experts else fixed))
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    end = ENDS.get(kind, TABLE[kind].lowest) + 0.005
    assert values[0] > end >= values[-1]
