"""Maximal violation of balance: how far the busiest expert is above the mean."""

import pandas as pd
import torch

from moebius.lab.diagnostics._batch_measure import BatchMeasure
from moebius.lab.diagnostics._loads import LOADS, add_loads, loads_with_null, violation
from moebius.lab.diagnostics._null import quantiles
from moebius.lab.diagnostics._rows import RoutedRows


class MaxViolation(BatchMeasure):
    """How far the busiest expert's load is above the mean, over all rows and in a mean batch.

    MaxVio = (max_e n_e − mean_e n_e) / mean_e n_e

    n_e counts assignments (rows on which e runs), wins (rows whose largest weight is e) or weight (the sum of e's
    weights). Over all rows it is the paper's MaxVio_global; `batch` is MaxVio_batch, the mean over calls of `update`.

    Range: 0 … E − 1; E / k − 1 where k experts take all assignments.
    Null: the mean under a random balanced router with the same T, E and k, of drawn loads with a fixed seed; null_high
    is exceeded in 2.5 of 100 draws, and batch_null is of batches of the mean size. Even a perfect router that draws at
    random is above 0.

    The frame has a line for each load: of, violation, null, null_high, batch, batch_null, batches.

    Example:
        >>> rows = RoutedRows(torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), k=1)
        >>> MaxViolation.of(rows)[["of", "violation"]]
                    of  violation
        0  assignments        0.5
        1         wins        0.5
        2       weight        0.5

    Reference: Wang et al. 2024, Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts, arXiv:2408.15664.
    """

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the loads of each expert."""
        add_loads(self, rows)

    def add_batch(self, sums) -> None:
        """Add the violations of a batch."""
        self.add("violations", torch.tensor([float(violation(sums[name].numpy())) for name in LOADS]))

    def frame(self) -> pd.DataFrame:
        """A line for each load."""
        batches, lines = int(self.sums["batches"]), []
        batch_rows = round(self.rows / batches)
        of_batches = loads_with_null(self.sums, batch_rows, self.k)
        for place, (name, load_E, draws_NE) in enumerate(loads_with_null(self.sums, self.rows, self.k)):
            null, _, null_high = quantiles(violation(draws_NE))
            line = {"of": name, "violation": float(violation(load_E)), "null": null, "null_high": null_high}
            batch = float(self.total("violations")[place]) / batches
            batch_null = float(violation(next(of_batches)[2]).mean())
            lines.append({**line, "batch": batch, "batch_null": batch_null, "batches": batches})
        return pd.DataFrame(lines)
