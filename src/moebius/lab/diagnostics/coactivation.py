"""Co-activation: which experts run for the same rows."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.report.gate_rows import GateRows
from moebius.lab.statistics.wilson import wilson


class Coactivation(Measure):
    """How often each other expert runs for the rows that an expert runs for.

    share(i, j) = N_ij / N_i,  N_ij the rows for which both run, N_i those for which i runs; over all pairs i ≠ j

    Range: 0 … 1.
    Null: (k − 1) / (E − 1), for a random balanced router; where the number of experts of a row c varies,
    Σ c (c − 1) / ((E − 1) Σ c). Two experts far above it may be one, or depend on each other.

    The frame has a line for each pair whose first expert runs: expert, other, rows (N_i), both (N_ij), share, low and
    high (95 %), null.

    Example:
        >>> import torch
        >>> rows = RoutedRows(torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]), k=2)
        >>> frame = Coactivation.of(rows)
        >>> frame[frame["expert"] == 0][["other", "both", "share", "null"]].round(3).values.tolist()
        [[1.0, 2.0, 0.667, 0.5], [2.0, 1.0, 0.333, 0.5]]

    Reference: Muennighoff et al. 2024, OLMoE, arXiv:2409.02060, section 5.2; all pairs are counted, not only neighbours
    in the order of the selection.
    """

    @classmethod
    def table(cls, rows: GateRows) -> pd.DataFrame | None:
        """The pairs of a gate that selects several experts and not all; None for others, where nothing is to see."""
        most = int((rows.weights != 0).sum(1).max(initial=0))
        return super().table(rows) if 1 < most < rows.weights.shape[1] else None

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the rows that each pair has in common: whole numbers, which float32 adds exactly."""
        kept_TE = rows.kept.float()
        self.add("pairs", kept_TE.T @ kept_TE)

    def frame(self) -> pd.DataFrame:
        """A line for each pair."""
        pairs_EE = self.total("pairs")
        counts_E = pairs_EE.diagonal()
        expert, rival = np.nonzero((counts_E > 0)[:, None] & ~np.eye(self.experts, dtype=bool))
        null = (pairs_EE.sum() - counts_E.sum()) / max(1.0, (self.experts - 1) * counts_E.sum())
        share, low, high = wilson(counts_E[expert], pairs_EE[expert, rival])
        return pd.DataFrame(
            {
                "expert": expert,
                "other": rival,
                "rows": counts_E[expert].astype(np.int64),
                "both": pairs_EE[expert, rival].astype(np.int64),
                "share": share,
                "low": low,
                "high": high,
                "null": null,
            }
        )
