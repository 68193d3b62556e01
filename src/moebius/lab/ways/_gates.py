"""Gates that read the rows: which fit them, and how they are trained."""

import functools
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from moebius.gates.conv import Conv
from moebius.gates.linear import Linear
from moebius.gates.mlp import MLP
from moebius.gates.standardised import Standardised
from moebius.gates.table import Table
from moebius.lab.remedies._fitting import fit_part, held_out_loss
from moebius.lab.ways._fitting import column_case, columns
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Obstacle

# Rows that a gate is trained on at most.
MOST_ROWS = 20_000
# Filters of a gate for images, in blocks that halve them: small beside the networks that it chooses among.
FILTERS, HIDDEN = (16, 32), (32,)


def fitting_gates(pool: Pool) -> dict[str, Callable[[], nn.Module]] | Obstacle:
    """What a gate is → a function that makes one for the pool's rows.

    A gate of the caller's alone, where there is one; a convolutional one for images; for a table that of its columns;
    else a linear one and one with a hidden layer. All but the first read standardised rows.
    """
    x, count = pool.rows.images, pool.count
    if pool.gate is not None:
        return {"the caller's gate": functools.partial(pool.gate, count)}
    if not (x.is_floating_point() or x.dtype == torch.uint8):
        return Obstacle("nothing tells how a gate reads rows of whole numbers: mb.compose(…, gate=…)")
    if x.ndim == 4 and x.shape[2] == x.shape[3] and x.shape[2] >= 8:
        channels, size = x.shape[1], x.shape[2]
        make = functools.partial(Conv, channels, size, count, FILTERS, HIDDEN)
        return {"a convolutional gate": lambda: Standardised(make(), channels=channels)}
    features = prod(x.shape[1:])
    if pool.cardinalities:
        return {"a gate of the columns": lambda: Table(features, count, pool.cardinalities)}
    if x.ndim != 2:
        return {"a linear gate": lambda: Linear(features, count)}
    return {
        "a linear gate": lambda: Standardised(Linear(features, count), features=features),
        "a gate with a hidden layer": lambda: Standardised(MLP(features, count), features=features),
    }


def trained_gate(pool: Pool) -> tuple[nn.Module, str] | Obstacle:
    """A gate that is trained on the pool's rows with all networks' probabilities mixed, and what it is.

    Of several the one with the least loss on rows that were not fitted. Ways that use it share it.
    """
    if "gate" not in pool.shared:
        gates = fitting_gates(pool)
        pool.shared["gate"] = gates if isinstance(gates, Obstacle) else train_gates(pool, gates)
    return pool.shared["gate"]


def train_gates(
    pool: Pool, gates: dict[str, Callable[[], nn.Module]], combine: Callable[..., Tensor] | None = None
) -> tuple[nn.Module, str]:
    """The gate with the least loss on rows that were not fitted, and what it is.

    Arguments:
        pool: the rows.
        gates: what a gate is → a function that makes one.
        combine: unless given, that of the task.
    """
    if len(pool) > MOST_ROWS:
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(pool.seed))[:MOST_ROWS]
        pool = pool.take(order.to(pool.outputs.device))
    ranked: list[tuple[tuple[float, float], str, nn.Module]] = []
    for text, make in gates.items():
        gate: Any = make().to(pool.outputs.device)
        model = pool.mixture(gate, combine=combine, experts=columns(pool.count))
        case = column_case(pool, model)
        if any(parameter.requires_grad for parameter in gate.parameters()):
            fit_part(case, model, list(gate.parameters()))
        ranked.append((held_out_loss(case, model), text, gate))
    _, text, gate = min(ranked, key=lambda each: each[0])
    return gate.eval(), text
