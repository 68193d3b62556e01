"""Margin of the gate: how clearly it prefers the experts that it selects."""

import numpy as np
import pandas as pd
import torch

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows

BINS = 1000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class GateMargin(Measure):
    """How clearly the gate prefers its first expert to the second, and the last that runs to the next that does not.

    margin_i = p_(j) − p_(j+1),  p_(1) ≥ p_(2) ≥ … the shares of the gate's distribution;  j = 1 (`first`), k (`last`)

    A margin near 0 is a row that a small change sends elsewhere; a gate whose margins are all near 1 is saturated, and
    has hardly a gradient.

    Range: 0 … 1.
    Null: 1 / (E j), exactly, the mean for a distribution that is drawn uniformly from all distributions.

    The frame has a line for `first` and, where not all experts run, one for `last`: of, mean, low and high (95 %),
    null, and the quantiles q05, q25, q50, q75, q95, exact to one in a thousand.

    Example:
        >>> frame = GateMargin.of(RoutedRows(torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]]), k=2))
        >>> frame[["of", "mean", "null"]].round(3)
              of  mean   null
        0  first  0.35  0.333
        1   last  0.10  0.167

    Reference: the margin of a classifier, Schapire et al. 1998, Boosting the Margin; the null is the mean of ordered
    spacings, Rényi 1953.
    """

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the margins and their histograms."""
        count = min(rows.k, rows.experts - 1)
        ordered_TN = rows.probs.abs().topk(count + 1).values.double()
        total_T = rows.probs.abs().sum(1, dtype=torch.float64)
        ordered_TN /= torch.where(total_T > 0, total_T, 1).unsqueeze(1)
        second_T = ordered_TN[:, 1] if count else torch.zeros_like(total_T)
        self._add_margin("first", ordered_TN[:, 0] - second_T)
        if rows.k < rows.experts:
            self._add_margin("last", ordered_TN[:, -2] - ordered_TN[:, -1])

    def _add_margin(self, name: str, margin_T: torch.Tensor) -> None:
        bins = (margin_T * BINS).long().clamp_(0, BINS - 1)
        self.add(f"histogram.{name}", torch.bincount(bins, minlength=BINS))
        self.add(f"moments.{name}", torch.stack([margin_T.sum(), margin_T.square().sum()]))

    def frame(self) -> pd.DataFrame:
        """A line for each of the two margins."""
        places = {"first": 1, "last": self.k}
        return pd.DataFrame([self._line(name, places[name]) for name in self.groupings("histogram")])

    def _line(self, name: str, place: int) -> dict[str, float | str]:
        reached = self.total(f"histogram.{name}").cumsum()
        mean, low, high = mean_interval(reached[-1], *self.total(f"moments.{name}"))
        line = {
            "of": name,
            "mean": float(mean),
            "low": float(low),
            "high": float(high),
            "null": 1 / self.experts / place,
        }
        middles = (np.searchsorted(reached, np.array(QUANTILES) * reached[-1]) + 0.5) / BINS
        return line | {f"q{round(100 * q):02d}": float(middle) for q, middle in zip(QUANTILES, middles, strict=True)}
