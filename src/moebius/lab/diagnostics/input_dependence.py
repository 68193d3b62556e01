"""Input dependence: how much of a gate's choice depends on the row."""

import numpy as np
import pandas as pd
from scipy.special import entr

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class InputDependence(Measure):
    """How much the gate's distribution depends on the row: what a gate that ignores its input lacks.

    I = H(mean_i p_i) − mean_i H(p_i) = mean_i KL(p_i ‖ mean_j p_j),  share = I / ln E

    p is the gate's distribution before the selection (`probs`, by its shares). `marginal` is the first term, the most
    that I can be with the loads that the experts have.

    Range: 0 … ln E nats; share 0 … 1, and 0 for one expert.
    Null: 0, exactly, for a blind gate, however well balanced. A gate that draws at random for each row is not blind in
    this sense: whether its choice fits classes or losses is for `Specialisation` and `Regret` to say.

    The frame has one line: information, share, null, low and high (95 %, of the information), marginal, row.

    Example:
        >>> import torch
        >>> InputDependence.of(RoutedRows(torch.eye(2)))[["information", "share"]].round(3).values.tolist()
        [[0.693, 1.0]]
        >>> InputDependence.of(RoutedRows(torch.full((5, 2), 0.5)))["information"].tolist()
        [0.0]

    Reference: Krause, Perona, Gomes 2010, Discriminative Clustering by Regularized Information Maximization, NIPS.
    The interval is by the delta method: ours.
    """

    def add_rows(self, rows: RoutedRows) -> None:
        """Add shares, entropies, and their products, of which the variance of the rows' divergences is made."""
        shares_TE, entropy_T = rows.prob_shares, rows.prob_entropies
        self.add("shares", shares_TE.sum(0))
        self.add("entropy", entropy_T.sum())
        self.add("squares", entropy_T.square().sum())
        self.add("products", entropy_T @ shares_TE)
        self.add("pairs", shares_TE.T @ shares_TE)

    def frame(self) -> pd.DataFrame:
        """One line."""
        mean_E = self.total("shares") / self.rows
        row, marginal = float(self.total("entropy")) / self.rows, float(entr(mean_E).sum())
        # The row's divergence is −H(p_i) − Σ_e p_ie ln mean_e; what it is squared takes all products of the two terms.
        logs_E = np.log(np.where(mean_E > 0, mean_E, 1))
        squares = self.total("squares") + 2 * self.total("products") @ logs_E + logs_E @ self.total("pairs") @ logs_E
        information = max(0.0, marginal - row)
        _, low, high = mean_interval(self.rows, information * self.rows, squares)
        share = information / np.log(self.experts) if self.experts > 1 else 0.0
        line = {
            "information": information,
            "share": share,
            "null": 0.0,
            "low": max(0.0, float(low)),
            "high": float(high),
        }
        return pd.DataFrame([{**line, "marginal": marginal, "row": row}])
