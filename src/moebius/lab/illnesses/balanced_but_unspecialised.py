"""Balanced but unspecialised: the experts share the rows evenly, and it makes no difference which gets what."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Symptom, illness
from moebius.lab.illnesses._intervals import mean_interval
from moebius.lab.illnesses._use import chosen_experts, use_shares

# Effective experts beyond the first, of E − 1, above which the use counts as even.
EVEN = 0.5
# The part of the mixture's loss, or of the score, or of the groups' entropy, that routing has to be shown to be worth.
FLOOR = 0.02
# What it may seem to be worth at most, and what chance may hide: with few rows nothing can be said.
SEEMING, MOST = 0.05, 0.1


@illness("MB004", "loss that the routes save, of the loss", remedies=("refit_gate", "average"))
def balanced_but_unspecialised(gate: Examination) -> Symptom | None:
    """The use of the experts is even, but rows could as well swap their routes.

    The model is run once more with the weights of each row given to another one (same weights, same loads). Where
    that is not shown to cost a fiftieth of the loss or of the score, nor seems to cost a twentieth, routing is worth
    nothing. Where the loss is not known, the mutual
    information of expert and class (or domain) decides, less what chance gives: (E − 1)(G − 1) / 2T nats.

    Null: a permuted gate.

    Reference: ours. A high entropy of the loads is what balance losses ask for, and a router that ignores the content
    of rows has it too.
    """
    rows = gate.rows
    shares = use_shares(rows)
    effective = math.exp(float(torch.special.entr(shares).sum()))
    if not gate.decides or effective - 1 < EVEN * (rows.experts - 1):
        return None
    balance = f"{effective:.1f} of {rows.experts} experts are in use, evenly"
    remedy = (
        "let the experts differ before the gate learns: train them on different rows (best_fit, best_expert), or start "
        "them apart; and balance over the global batch, because balance within a small batch forbids specialists"
    )
    if gate.permuted is not None and gate.as_is is not None:
        size = float(gate.as_is.losses.abs().mean().clamp(min=1e-12))
        saved = mean_interval((gate.permuted.losses - gate.as_is.losses) / size)
        gain = mean_interval(gate.as_is.scores.double() - gate.permuted.scores.double())
        if saved.high < 0:
            return None  # routes matter, and these are the wrong ones
        figures = saved, gain
        if any(each.low >= FLOOR or each.value >= SEEMING or each.high >= MOST for each in figures):
            return None
        evidence = f"{balance}, yet rows that swap their routes lose {saved.value:.2g} of the loss"
        return Symptom(evidence, saved.value, saved.low, saved.high, 0.0, "a permuted gate", remedy)
    return _without_losses(rows, balance, remedy)


def _without_losses(rows: RoutedRows, balance: str, remedy: str) -> Symptom | None:
    groups = {name: group for name, group in rows.groups.items() if name in ("class", "domain")}
    information = {name: _information(chosen_experts(rows), group, rows.experts) for name, group in groups.items()}
    information = {name: value for name, value in information.items() if value is not None}
    if not information:
        return None
    name, (value, error) = max(information.items(), key=lambda item: item[1][0])
    if value + error >= FLOOR:
        return None
    evidence = f"{balance}, yet the expert of a row tells {max(value, 0):.2g} of what there is to know of its {name}"
    return Symptom(evidence, value, value - error, value + error, 0.0, "a permuted gate", remedy)


def _information(experts_T: Int[Tensor, " T"], group: Int[Tensor, " T"], experts: int) -> tuple[float, float] | None:
    """Mutual information of expert and group above chance, of the group's entropy, and half its interval."""
    real = group >= 0
    experts_T, group = experts_T[real], group[real].long()
    count = int(group.max()) + 1 if len(group) else 0
    table = torch.zeros(experts * max(count, 1), dtype=torch.float64)
    table.index_add_(0, experts_T * max(count, 1) + group, torch.ones(len(group), dtype=torch.float64))
    joint = table.view(experts, -1) / max(len(group), 1)
    used, present = int((joint.sum(1) > 0).sum()), int((joint.sum(0) > 0).sum())
    if present < 2 or len(group) < 20:
        return None
    by_expert, by_group = torch.special.entr(joint.sum(1)).sum(), torch.special.entr(joint.sum(0)).sum()
    value = float(by_expert + by_group - torch.special.entr(joint).sum())
    freedom = (used - 1) * (present - 1)
    # 2T·I is about chi-square with these degrees of freedom where expert and group are independent.
    chance, spread = freedom / (2 * len(group)), 2.6 * math.sqrt(2 * freedom) / (2 * len(group))
    return (value - chance) / float(by_group), spread / float(by_group)
