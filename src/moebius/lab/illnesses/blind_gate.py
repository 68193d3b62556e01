"""Blind gate: the weights hardly depend on the row."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import Mean, mean_interval

# Input dependence, as a share of ln E, under which rows are told apart by nothing that matters.
FLOOR = 0.01


@illness(
    "MB003",
    "input dependence, as a share of ln E",
    remedies=("refit_gate", "average"),
    explains=("balanced but unspecialised", "gate worse than uniform"),
    watched=True,
)
def blind_gate(gate: Examination) -> Symptom | None:
    """All rows get nearly the same weights, before and after the selection of experts.

    I = H(mean_t p_t) − mean_t H(p_t) = mean_t KL(p_t ‖ mean p), in nats; the larger one of the gate's distribution and
    of the weights. Blind is a gate whose I is shown to be under ln E / 100.

    Null: a gate that decides: it would have I up to ln E. Balance says nothing here: a blind gate may be as even as one
    likes.

    Reference: mutual information of row and expert; ours as a test.
    """
    if not gate.decides:
        return None
    scale = math.log(gate.rows.experts)
    dependence = max(
        (_dependence(shares, scale) for shares in (gate.rows.prob_shares, gate.rows.shares)), key=lambda m: m.high
    )
    if dependence.high >= FLOOR:
        return None
    evidence = (
        f"the weights carry {dependence.value:.1g} of the ln {gate.rows.experts} nats that they could about their row: "
        "every row gets nearly the same ones"
    )
    remedy = (
        "look at what the gate gets: an input that varies between rows, scaled to about unit variance; then train it "
        "anew, with more steps or a larger learning rate of its own. If it stays blind, equal weights are simpler"
    )
    return Symptom(
        evidence, dependence.value, max(dependence.low, 0.0), dependence.high, 1.0, "a gate that decides", remedy
    )


def _dependence(shares: Float[Tensor, "T E"], scale: float) -> Mean:
    """`InputDependence` with the interval of the other tests."""
    divergence = torch.special.xlogy(shares, shares / shares.mean(0).clamp(min=1e-300)).sum(1)
    return mean_interval(divergence / scale)
