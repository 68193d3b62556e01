"""How much each expert is used, relative to an even share."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._intervals import mean_interval, share_interval

# An expert under this part of an even share takes no part in the mixture, unless it has a group of its own.
FLOOR = 0.05


def use_shares(rows: RoutedRows) -> Float[Tensor, " E"]:
    """The part of all use that each expert has; Σ = 1.

    Where a router selects experts, use is the number of rows that they run on; where all run, it is their weight.
    """
    used = rows.kept if rows.k < rows.experts else rows.weights.abs()
    sums = used.double().sum(0)
    return sums / sums.sum().clamp(min=torch.finfo(sums.dtype).tiny)


def idle_experts(rows: RoutedRows) -> Bool[Tensor, " E"]:
    """Which experts have almost no use: under a twentieth of an even share, and shown to have less than an even one.

    Where a router selects experts, this takes about 11 E/k rows: with fewer, chance may leave an expert out. An expert
    with most of the weight of a class or a domain, however rare, is not idle: it does what it is for.
    """
    shares = use_shares(rows)
    experts, selects = len(shares), rows.k < rows.experts
    assignments = float(rows.kept.sum())
    idle = shares * experts < FLOOR
    for expert in idle.nonzero().flatten().tolist():
        if selects:
            share = share_interval(float(shares[expert]) * assignments, assignments, experts)
        else:
            share = mean_interval(rows.weights[:, expert].abs() / rows.weights.abs().sum(1).clamp(min=1e-30), experts)
        idle[expert] = share.high * experts < 1
    return idle & ~_has_group(rows)


def _has_group(rows: RoutedRows) -> Bool[Tensor, " E"]:
    """Which experts get at least half of the weight of some class or domain."""
    result = torch.zeros(rows.experts, dtype=torch.bool)
    for by in rows.groups.keys() - {"split", "position"}:
        sums = rows.sum_by_group(by, rows.weights.abs().double())
        if len(sums) > 1:
            result |= (sums >= 0.5 * sums.sum(1, keepdim=True).clamp(min=1e-300)).any(0)
    return result


def active_count(rows: RoutedRows) -> int:
    """How many experts a row has that count: the router's k, or 1 where all run and the weights decide."""
    return rows.k if rows.k < rows.experts else 1
