"""Load and importance: how many rows and how much weight each expert gets."""

import numpy as np
import pandas as pd

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.statistics.wilson import wilson


class Load(Measure):
    """How many rows each expert wins, on how many it runs, and how much weight it gets.

    load_e = share of rows whose largest weight is e (a tie divides the row);  used_e = share of rows on which e runs;
    importance_e = mean_i G(x_i)_e

    Range: load 0 … 1, Σ_e load_e = 1; used 0 … 1; importance that of the weights.
    Null: 1/E, the load of a router that spreads rows evenly.

    The frame has the columns expert, load, importance, used, null, and low and high, the 95 % interval of the load.

    Example:
        >>> import torch
        >>> frame = Load.of(RoutedRows(torch.tensor([[0.75, 0.25], [1.0, 0.0]])))
        >>> frame[["load", "importance", "used", "null"]]
           load  importance  used  null
        0   1.0       0.875   1.0   0.5
        1   0.0       0.125   0.5   0.5

    Reference: Shazeer et al. 2017, arXiv:1701.06538, section 4 (their importance is the sum over the batch, ours the
    mean; their load is a smooth estimate, ours the count).
    """

    def add_rows(self, rows: RoutedRows) -> None:
        """Add wins, rows and weights of each expert."""
        self.add("wins", rows.wins)
        self.add("counts", rows.counts)
        self.add("weights", rows.weight_sums)

    def frame(self) -> pd.DataFrame:
        """A line for each expert."""
        load_E, low_E, high_E = wilson(self.rows, self.total("wins"))
        return pd.DataFrame(
            {
                "expert": np.arange(self.experts),
                "load": load_E,
                "importance": self.total("weights") / self.rows,
                "used": self.total("counts") / self.rows,
                "null": 1 / self.experts,
                "low": low_E,
                "high": high_E,
            }
        )
