"""Regret: how much worse the chosen expert is than the best one for the row."""

import numpy as np
import pandas as pd
import torch

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class Regret(Measure):
    """How much more the expert with the largest weight loses than the row's best expert.

    regret_i = loss_{i, argmax w_i} − min_e loss_ie;  share = share of rows with a regret above 0

    Range: 0 … ∞ in units of the loss; share 0 … 1.
    Null: the regret under a permuted gate, whose loads are the same but independent of the row:
    Σ_e load_e · mean_i (loss_ie − min_j loss_ij), and for one expert's rows its mean over all rows; so has share_null.
    A gate is worth its work as far as it is below its null.

    The frame has a line for all rows (expert −1) and one for each expert that wins some: expert, rows, regret, low and
    high (95 %), null, share, share_null.

    Example:
        >>> losses = torch.tensor([[0.0, 1.0], [3.0, 1.0], [2.0, 1.0]])
        >>> rows = RoutedRows(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), expert_losses=losses)
        >>> Regret.of(rows)[["expert", "rows", "regret", "null", "share"]].round(3)
           expert  rows  regret   null  share
        0      -1     3   0.333  0.778  0.333
        1       0     2   0.500  1.000  0.500
        2       1     1   0.000  0.333  0.000

    Reference: ours; compare counterfactual routing, arXiv:2605.07260.
    """

    requires = ("expert_losses",)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the regrets of the chosen expert, and of every expert on all rows."""
        assert rows.expert_losses is not None
        least_T1 = rows.expert_losses.amin(1, keepdim=True)
        regrets_TE = (rows.expert_losses - least_T1).double()
        regret_T1 = regrets_TE.gather(1, rows.top.unsqueeze(1))
        self.add("all", regrets_TE.sum(0))
        self.add("all_worse", (rows.expert_losses > least_T1).sum(0))
        columns_TN = torch.cat([torch.ones_like(regret_T1), regret_T1, regret_T1.square(), regret_T1.sign()], 1)
        self.add("chosen", rows.sum_by_top(columns_TN))

    def frame(self) -> pd.DataFrame:
        """A line for all rows, and for each expert."""
        chosen_EN, load_E = self.total("chosen"), self.total("chosen")[:, 0] / self.rows
        null_E, share_null_E = (self.total(name) / self.rows for name in ("all", "all_worse"))
        wins = np.flatnonzero(chosen_EN[:, 0])
        count, total, squares, worse = np.vstack([chosen_EN.sum(0), chosen_EN[wins]]).T
        regret, low, high = mean_interval(count, total, squares)
        return pd.DataFrame(
            {
                "expert": [-1, *wins],
                "rows": count.astype(np.int64),
                "regret": regret,
                "low": np.maximum(low, 0),
                "high": high,
                "null": [load_E @ null_E, *null_E[wins]],
                "share": worse / count,
                "share_null": [load_E @ share_null_E, *share_null_E[wins]],
            }
        )
