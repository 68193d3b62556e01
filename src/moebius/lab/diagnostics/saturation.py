"""Saturation: how much of the final routing a checkpoint already has."""

import pandas as pd
import torch
from torch.nn.functional import one_hot

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._pair_measure import PairMeasure
from moebius.lab.diagnostics._rows import RoutedRows


class Saturation(PairMeasure):
    """How many of a row's experts at one checkpoint are those at a later one.

    saturation = mean_i |S_i(t) ∩ S_i(T)| / |S_i(T)|,  S the experts that run for a row, or the one with the largest
    weight where all run

    Range: 0 … 1, where the routing has settled.
    Null: mean_i |S_i(t)| / E, which is k/E: the saturation of a random balanced router, exactly. permuted_null is that
    of rows in another order, Σ_e share_e(t) · share_e(T) / k for k experts a row: loads that are alike explain so much.

    The frame has one line: saturation, low and high (95 %), null, permuted_null, rows.

    Example:
        >>> early, late = torch.tensor([[0.5, 0.5, 0.0]] * 2), torch.tensor([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
        >>> frame = Saturation.of(RoutedRows(early, k=2), RoutedRows(late, k=2))
        >>> frame[["saturation", "null"]].round(3).values.tolist()
        [[0.75, 0.667]]

    Reference: Muennighoff et al. 2024, OLMoE, arXiv:2409.02060, section 5.1.
    """

    def add_rows(self, rows: RoutedRows, others: RoutedRows) -> None:
        """Add the shares of the later experts that the earlier routing has."""
        if max(rows.k, others.k) < rows.experts:
            first_TE, second_TE = rows.kept, others.kept
        else:
            first_TE, second_TE = (one_hot(side.top, rows.experts).bool() for side in (rows, others))
        # A row without any expert later has nothing to agree with.
        count_T = second_TE.sum(1)
        present_T = count_T > 0
        first_TE, second_TE, count_T = first_TE[present_T], second_TE[present_T], count_T[present_T].double()
        share_T = (first_TE & second_TE).sum(1) / count_T
        self.add("sums", torch.stack([present_T.sum(), share_T.sum(), share_T.square().sum()]))
        self.add("first", first_TE.sum(0))
        self.add("second", (second_TE / count_T.unsqueeze(1)).sum(0))

    def frame(self) -> pd.DataFrame:
        """One line."""
        count, total, squares = self.total("sums")
        count, chance = max(count, 1.0), self.total("first").sum() / self.experts
        saturation, low, high = mean_interval(count, total, squares)
        line = {"saturation": float(saturation), "low": float(low), "high": float(high), "null": chance / count}
        permuted = float((self.total("first") / count) @ (self.total("second") / count))
        return pd.DataFrame([{**line, "permuted_null": permuted, "rows": int(count)}])
