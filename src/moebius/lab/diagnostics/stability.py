"""Stability: whether two trainings divide the rows in the same way, up to the numbers of the experts."""

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

from moebius.lab.diagnostics._pair_measure import PairMeasure
from moebius.lab.diagnostics._rows import RoutedRows

DRAWS = 20


class Stability(PairMeasure):
    """How many rows two gates send to the same experts, once those of the second are matched with the first's.

    agreement = max over matchings π of Σ_e N_{e, π(e)} / Σ N,  N_ej the rows whose largest weight is e in the first
    gate and j in the second

    The matching is the best of all E!, by the Hungarian method: expert numbers mean nothing across seeds. For gates of
    the same training, whose numbers do mean something, there is `Saturation`.

    Range: 0 … 1; about 1/E … 1.
    Null: the mean agreement after the same matching of tables with these loads and rows in another order, drawn with a
    fixed seed; of an expert, the load of its partner. It is above 1/E, because a matching finds something in any table.

    The frame has a line for the whole (expert and other −1) and one for each pair of the matching whose first expert
    wins rows: expert, other, rows, agreement, null.

    Example:
        >>> rows, others = RoutedRows(torch.eye(2).repeat(5, 1)), RoutedRows(torch.eye(2).flip(1).repeat(5, 1))
        >>> Stability.of(rows, others)[["expert", "other", "agreement"]].values.tolist()
        [[-1.0, -1.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]

    Reference: Kuhn 1955, The Hungarian Method for the Assignment Problem; for partitions Meilă, Heckerman 2001, An
    Experimental Comparison of Model-Based Clustering Methods.
    """

    def add_rows(self, rows: RoutedRows, others: RoutedRows) -> None:
        """Add the rows of each pair of winners."""
        cells = rows.top * rows.experts + others.top
        self.add("counts", torch.bincount(cells, minlength=rows.experts**2).view(rows.experts, -1))

    def frame(self) -> pd.DataFrame:
        """A line for the whole, and for each pair."""
        counts_EE = self.total("counts")
        first, second = counts_EE.sum(1), counts_EE.sum(0)
        expert, partner = linear_sum_assignment(counts_EE, maximize=True)
        wins = first[expert] > 0
        expert, partner = expert[wins], partner[wins]
        rows = counts_EE[expert, partner]
        # Sorted, so that the same loads draw the same tables whatever the experts' numbers are.
        chances = np.outer(np.sort(first), np.sort(second)).ravel() / self.rows**2
        draws = np.random.default_rng(0).multinomial(self.rows, chances / chances.sum(), DRAWS)
        null = np.mean([_matched(draw.reshape(counts_EE.shape)) for draw in draws]) / self.rows
        return pd.DataFrame(
            {
                "expert": [-1, *expert],
                "other": [-1, *partner],
                "rows": [self.rows, *first[expert].astype(np.int64)],
                "agreement": [counts_EE[expert, partner].sum() / self.rows, *(rows / first[expert])],
                "null": [null, *(second[partner] / self.rows)],
            }
        )


def _matched(counts: np.ndarray) -> float:
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum())
