"""Counterfactuals: what the rows of an expert would have got from each other expert."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class Counterfactuals(Measure):
    """What each expert loses on the rows that it wins, less what each other expert would lose on the same rows.

    difference(e, j) = mean over rows whose largest weight is e of (loss_ie − loss_ij)

    Range: −∞ … ∞ in units of the loss; above 0 where the other expert would have been the better choice.
    Null: mean over all rows of (loss_ie − loss_ij): the difference under a permuted gate, which sends e as many
    rows but not these. A gate that tells its experts apart is below its null.

    The frame has a line for each pair of an expert that wins rows and another: expert, other, rows, difference, low and
    high (95 %, paired by row), null. The work of both choices is the same: one expert for a row.

    Example:
        >>> import torch
        >>> losses = torch.tensor([[0.0, 1.0], [3.0, 1.0], [2.0, 1.0]])
        >>> rows = RoutedRows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), expert_losses=losses)
        >>> Counterfactuals.of(rows)[["expert", "other", "rows", "difference"]]
           expert  other  rows  difference
        0       0      1     2         0.0
        1       1      0     1        -2.0

    Reference: ours; compare counterfactual routing, arXiv:2605.07260, which asks what other routes of equal work give.
    """

    requires = ("expert_losses",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the differences between the chosen expert's loss and the others'."""
        assert rows.expert_losses is not None
        losses_TE = rows.expert_losses.double()
        self.add("losses", losses_TE.sum(0))
        differences_TE = losses_TE.gather(1, rows.top.unsqueeze(1)) - losses_TE
        self.add("counts", rows.top.bincount(minlength=self.experts))
        self.add("differences", rows.sum_by_top(differences_TE))
        self.add("squares", rows.sum_by_top(differences_TE.square_()))

    def frame(self) -> pd.DataFrame:
        """A line for each pair."""
        counts_E, losses_E = self.total("counts"), self.total("losses") / self.rows
        expert, rival = np.nonzero((counts_E > 0)[:, None] & ~np.eye(self.experts, dtype=bool))
        sums = (self.total(name)[expert, rival] for name in ("differences", "squares"))
        difference, low, high = mean_interval(counts_E[expert], *sums)
        return pd.DataFrame(
            {
                "expert": expert,
                "other": rival,
                "rows": counts_E[expert].astype(np.int64),
                "difference": difference,
                "low": low,
                "high": high,
                "null": losses_E[expert] - losses_E[rival],
            }
        )
