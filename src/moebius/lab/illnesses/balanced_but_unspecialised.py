"""Balanced but unspecialised: the experts share the rows evenly, and it makes no difference which gets what."""

import math

import torch

from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval
from moebius.lab.illnesses._use import use_shares

# Effective experts beyond the first, of E − 1, above which the use counts as even.
EVEN = 0.5
# The part of the mixture's loss, or of the score, that routing has to be shown to be worth.
FLOOR = 0.02
# What it may seem to be worth at most, and what chance may hide: with few rows nothing can be said.
SEEMING, MOST = 0.05, 0.1


@illness("MB004", "loss that the routes save, of the loss", remedies=("refit_gate", "average"))
def balanced_but_unspecialised(gate: Examination) -> Symptom | None:
    """The use of the experts is even, but rows could as well swap their routes.

    The model is run once more with the weights of each row given to another one (same weights, same loads). Where
    that is not shown to cost a fiftieth of the loss or of the score, nor seems to cost a twentieth, routing is worth
    nothing. `Specialisation` says beside it what the experts tell of classes and domains.

    Null: a permuted gate.

    Reference: ours. A high entropy of the loads is what balance losses ask for, and a router that ignores the content
    of rows has it too.
    """
    experts, effective = gate.rows.experts, math.exp(float(torch.special.entr(use_shares(gate.rows)).sum()))
    if not gate.decides or effective - 1 < EVEN * (experts - 1) or gate.permuted is None or gate.as_is is None:
        return None
    size = float(gate.as_is.losses.abs().mean().clamp(min=1e-12))
    saved = mean_interval((gate.permuted.losses - gate.as_is.losses) / size)
    gain = mean_interval(gate.as_is.scores.double() - gate.permuted.scores.double())
    if saved.high < 0:
        return None  # routes matter, and these are the wrong ones
    figures = saved, gain
    if any(each.low >= FLOOR or each.value >= SEEMING or each.high >= MOST for each in figures):
        return None
    evidence = (
        f"{effective:.1f} of {experts} experts are in use, evenly, yet rows that swap their routes lose "
        f"{saved.value:.2g} of the loss"
    )
    remedy = (
        "let the experts differ before the gate learns: train them on different rows (best_fit, best_expert), or start "
        "them apart; and balance over the global batch, because balance within a small batch forbids specialists"
    )
    return Symptom(evidence, saved.value, saved.low, saved.high, 0.0, "a permuted gate", remedy)
