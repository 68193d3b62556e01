"""What the ways that ask the nearest rows share."""

from typing import Any

import torch

from moebius.gates.knora_union import KnoraUnion
from moebius.lab.ways._pool import Pool
from moebius.lab.ways._way import Composed, Obstacle

# Rows that are kept at most: each prediction is compared with all of them.
MOST_ROWS = 2000
NEIGHBOURS = 7


def nearest_rows(pool: Pool, make: type[KnoraUnion], text: str) -> Composed | Obstacle:
    """The mixture whose gate keeps the pool's rows.

    Arguments:
        pool: of classes.
        make: the gate's class.
        text: what the gate does.
    """
    if not pool.classifies:
        return Obstacle("it is for classes: a network is right on a row, or wrong")
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(pool.seed))[:MOST_ROWS]
    few: Any = pool.take(order.to(pool.outputs.device))
    right = few.outputs.argmax(-1) == few.rows.labels.unsqueeze(1)
    gate = make(pool.count, pool.outputs.shape[2], len(few), min(NEIGHBOURS, len(few))).to(pool.outputs.device)
    gate.keep(few.outputs, right)
    return Composed(pool.mixture(gate), f"{text} the {gate.neighbours} nearest of {len(few):,} rows")
