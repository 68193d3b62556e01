"""Headroom: what other ways to choose among the same experts would give."""

import numpy as np
import pandas as pd
import torch

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows

# The best expert of all rows is known at the end; each expert has its place after these.
CHOICES = ("mixture", "gate", "oracle", "uniform")


class Headroom(Measure):
    """What the mixture loses, and what other choices among its experts would lose on the same rows.

    gain(choice) = mean_i (loss of the mixture − loss of the choice);  oracle: min_e loss_ie;  uniform: mean_e loss_ie

    The choices: `mixture` as it is; `gate`, the expert with the largest weight alone; `oracle`, each row's best expert;
    `best expert`, the single one with the smallest mean loss (chosen on these rows, so it flatters a little);
    `uniform`, an expert drawn at random; and each `expert` by itself. Where rows have scores, score and score_gain
    (of the choice, less the mixture's; the oracle takes each row's best score) have an interval too.

    Range: gain from −∞ to that of the oracle for choices of one expert; the mixture may be better than its oracle.
    Null: the gain of a uniform choice: a gate below it is worse than none.

    The frame has the columns choice, expert (−1 where it is none), loss, gain, low and high (95 %, paired by row),
    null, and with scores score, score_gain, score_low, score_high.

    Example:
        >>> losses = torch.tensor([[0.0, 1.0], [3.0, 1.0]])
        >>> rows = RoutedRows(torch.eye(2), losses=torch.tensor([0.5, 1.5]), expert_losses=losses)
        >>> Headroom.of(rows)[["choice", "loss", "gain"]]
                choice  loss  gain
        0      mixture  1.00  0.00
        1         gate  0.50  0.50
        2       oracle  0.50  0.50
        3      uniform  1.25 -0.25
        4  best expert  1.00  0.00
        5       expert  1.50 -0.50
        6       expert  1.00  0.00

    Reference: ours; compare Ko, Sabourin, Britto 2008, From Dynamic Classifier Selection to Dynamic Ensemble Selection
    (oracle, single best).
    """

    requires = ("losses", "expert_losses")

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the losses and scores of each choice, and their paired differences to the mixture's."""
        self._add_choices("loss", rows.losses, rows.expert_losses, rows.top, -1)
        if rows.scores is not None and rows.expert_scores is not None:
            self._add_choices("score", rows.scores, rows.expert_scores, rows.top, 1)

    def _add_choices(self, name, values_T, experts_TE, top_T, sign) -> None:
        values_T1, experts_TE = values_T.double().unsqueeze(1), experts_TE.double()
        gate_T1 = experts_TE.gather(1, top_T.unsqueeze(1))
        best_T1 = experts_TE.amin(1, keepdim=True) if sign < 0 else experts_TE.amax(1, keepdim=True)
        choices_TN = torch.cat([values_T1, gate_T1, best_T1, experts_TE.mean(1, keepdim=True), experts_TE], 1)
        self.add(name, choices_TN.sum(0))
        gains_TN = choices_TN.sub_(values_T1).mul_(sign)
        self.add(f"{name}_gain", gains_TN.sum(0))
        self.add(f"{name}_squares", gains_TN.square_().sum(0))

    def frame(self) -> pd.DataFrame:
        """A line for each choice, and for each expert."""
        losses_N = self.total("loss") / self.rows
        first = len(CHOICES)
        best = first + int(losses_N[first:].argmin())
        order = [*range(first), best, *range(first, len(losses_N))]
        gain, low, high = mean_interval(self.rows, self.total("loss_gain"), self.total("loss_squares"))
        low[0] = high[0] = 0.0
        columns = {
            "choice": [*CHOICES, "best expert", *["expert"] * self.experts],
            "expert": [*[-1] * first, best - first, *range(self.experts)],
            "loss": losses_N[order],
            "gain": gain[order],
            "low": low[order],
            "high": high[order],
            "null": gain[CHOICES.index("uniform")],
        }
        if "score" in self.sums:
            gain, low, high = mean_interval(self.rows, self.total("score_gain"), self.total("score_squares"))
            low[0] = high[0] = 0.0
            columns |= {"score": (self.total("score") / self.rows)[order], "score_gain": gain[order]}
            columns |= {"score_low": low[order], "score_high": high[order]}
        return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})
