"""Drops: assignments that the capacity of experts refuses."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import bdtrc
from torch import Tensor

from moebius.lab.diagnostics._batch_measure import BatchMeasure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.statistics.wilson import wilson


class Drops(BatchMeasure):
    """How many assignments the capacity of experts refuses, and how many rows are left without any expert.

    dropped = refused / (kept + refused) assignments;  unserved = share of the rows that asked for it on which none runs

    Range: 0 … 1.
    Null: dropped under a random balanced router with the same T, E, k and capacity C, in closed form for each batch:
    E · (T p · P[Bin(T − 1, p) ≥ C] − C · P[Bin(T, p) > C]) / T k,  p = k / E. C is the most rows that an expert ran on,
    in batches with drops; without drops the null is 0.

    The frame has a line for all experts (expert −1) and, where rows say which expert refused them, one for each:
    expert, assignments, dropped, low and high (95 %), null, unserved.

    Example:
        >>> import torch
        >>> kept = torch.tensor([[True, False], [True, False], [False, False]])
        >>> rows = RoutedRows(kept.float(), kept=kept, k=1, dropped=torch.tensor([0, 0, 1]))
        >>> Drops.of(rows)[["assignments", "dropped", "unserved"]].round(3).values.tolist()
        [[3.0, 0.333, 0.333]]

    Reference: Lepikhin et al. 2020, GShard, arXiv:2006.16668, section 2.2 (capacity); the null is ours.
    """

    requires = ("dropped",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add what was kept and refused, and the rows without an expert."""
        assert rows.dropped is not None
        self.add("kept", rows.counts)
        self.add("dropped", rows.dropped.sum())
        unserved_T = ~rows.kept.any(1)
        self.add("unserved", unserved_T.sum())
        if rows.refused is not None:
            self.add("refused", rows.refused.sum(0))
            self.add("refused_unserved", (rows.refused & unserved_T.unsqueeze(1)).sum(0))

    def add_batch(self, sums: Mapping[str, Tensor]) -> None:
        """Add the drops of a random balanced router in a batch like this one."""
        rows, dropped, capacity = int(sums["rows"]), float(sums["dropped"]), int(sums["kept"].max())
        p = min(1.0, (float(sums["kept"].sum()) + dropped) / (rows * self.experts))
        least = rows * p * _exceeds(capacity - 1, rows - 1, p) - capacity * _exceeds(capacity, rows, p)
        self.add("null", self.experts * max(0.0, least) if dropped else 0.0)

    def frame(self) -> pd.DataFrame:
        """A line for all experts, and for each."""
        kept_E, dropped, null = self.total("kept"), float(self.total("dropped")), float(self.total("null"))
        kept, refused = [kept_E.sum()], [dropped]
        asked, unserved = [float(self.rows)], [float(self.total("unserved"))]
        by_expert = "refused" in self.sums
        if by_expert:
            refused_E = self.total("refused")
            kept, refused = [*kept, *kept_E], [*refused, *refused_E]
            asked, unserved = [*asked, *(kept_E + refused_E)], [*unserved, *self.total("refused_unserved")]
        assignments = np.add(kept, refused)
        share, low, high = wilson(np.maximum(assignments, 1), refused)
        return pd.DataFrame(
            {
                "expert": [-1, *(range(self.experts) if by_expert else ())],
                "assignments": assignments.astype(np.int64),
                "dropped": share,
                "low": low,
                "high": high,
                "null": null / max(assignments[0], 1.0),
                "unserved": np.divide(unserved, np.maximum(asked, 1)),
            }
        )


def _exceeds(count: int, draws: int, p: float) -> float:
    """P[Bin(draws, p) > count]."""
    return 1.0 if count < 0 else 0.0 if count >= draws else float(bdtrc(count, draws, p))
