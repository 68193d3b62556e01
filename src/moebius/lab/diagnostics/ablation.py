"""Ablation: what the mixture loses without an expert."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class Ablation(Measure):
    """What the mixture's loss and score become without each expert, whose weight the others share out.

    change_e = mean_i (loss of the mixture without e − loss of the mixture);  score_change likewise

    Range: −∞ … ∞ in units of the loss; above 0 for an expert that the mixture needs, below 0 for a harmful one.
    Null: mean_e change_e, what an expert costs under a router that uses all alike; 0 for one that is never used.

    The losses without an expert are fields of the rows, `ablated_losses` and `ablated_scores`: only the task can
    compute them, of what the mixture combines under `moebius.lab.diagnostics.without_expert(routing, e)`. The frame
    has a line for each expert: expert, loss, change, low and high (95 %, paired by row), null, and with scores score,
    score_change.

    Example:
        >>> import torch
        >>> losses, ablated = torch.tensor([1.0, 1.0]), torch.tensor([[2.0, 1.0], [4.0, 1.0]])
        >>> Ablation.of(RoutedRows(torch.eye(2), losses=losses, ablated_losses=ablated))[["loss", "change", "null"]]
           loss  change  null
        0   3.0     2.0   1.0
        1   1.0     0.0   1.0

    Reference: ours; compare pruning by a leave-one-out loss, LeCun, Denker, Solla 1989, Optimal Brain Damage.
    """

    requires = ("losses", "ablated_losses")

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the losses without each expert, and the paired differences."""
        assert rows.losses is not None
        assert rows.ablated_losses is not None
        change_TE = rows.ablated_losses.double() - rows.losses.double().unsqueeze(1)
        self.add("losses", rows.losses.double().sum())
        self.add("changes", change_TE.sum(0))
        self.add("squares", change_TE.square().sum(0))
        if rows.scores is not None and rows.ablated_scores is not None:
            self.add("scores", rows.scores.double().sum())
            self.add("ablated_scores", rows.ablated_scores.double().sum(0))

    def frame(self) -> pd.DataFrame:
        """A line for each expert."""
        change, low, high = mean_interval(self.rows, self.total("changes"), self.total("squares"))
        loss = self.total("losses") / self.rows + change
        columns = {"expert": np.arange(self.experts), "loss": loss, "change": change, "low": low, "high": high}
        columns["null"] = np.full(self.experts, change.mean())
        if "scores" in self.sums:
            score = self.total("ablated_scores") / self.rows
            columns |= {"score": score, "score_change": score - self.total("scores") / self.rows}
        return pd.DataFrame(columns)
