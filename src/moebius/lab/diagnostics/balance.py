"""Balance: how evenly a gate uses its experts."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from moebius.lab.diagnostics._loads import add_loads, loads_with_null
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._null import entropy_of, quantiles
from moebius.lab.diagnostics._rows import RoutedRows


class Balance(Measure):
    """How many experts a gate uses in effect, and how unequal their loads are.

    effective = exp(H(n / Σ n)),  share = effective / E,  cv = √(mean (n_e − mean n)²) / mean n

    n_e counts assignments (rows on which e runs), wins (rows whose largest weight is e) or weight (the sum of e's
    absolute weights).

    Range: effective 1 … E, share 1/E … 1, cv 0 … √(E − 1).
    Null: the mean of each under a random balanced router with the same T, E and k, of drawn loads with a fixed seed;
    95 % of the draws of `effective` are from null_low to null_high. Balance is no specialisation: a gate that draws at
    random has it too (`InputDependence`, `Specialisation`).

    The frame has a line for each load: of, effective, null, null_low, null_high, share, cv, cv_null.

    Example:
        >>> import torch
        >>> rows = RoutedRows(torch.eye(4)[torch.tensor([0, 0, 1, 1])], k=1)
        >>> Balance.of(rows)[["effective", "share", "cv"]].round(6).loc[0].tolist()
        [2.0, 0.5, 1.0]

    Reference: Shazeer et al. 2017, arXiv:1701.06538, section 4 (CV); Hill 1973, Diversity and Evenness, for exp(H).
    """

    def add_rows(self, rows: RoutedRows) -> None:
        """Add the loads of each expert."""
        add_loads(self, rows)

    def frame(self) -> pd.DataFrame:
        """A line for each load."""
        lines = []
        for name, load_E, draws_NE in loads_with_null(self.sums, self.rows, self.k):
            effective = float(np.exp(entropy_of(np.abs(load_E))))
            null, low, high = quantiles(np.exp(entropy_of(draws_NE)))
            line = {"of": name, "effective": effective, "null": null, "null_low": low, "null_high": high}
            share, cv, cv_null = effective / self.experts, float(_variation(load_E)), float(_variation(draws_NE).mean())
            lines.append({**line, "share": share, "cv": cv, "cv_null": cv_null})
        return pd.DataFrame(lines)


def _variation(loads: Float[np.ndarray, "... E"]) -> Any:
    mean = np.abs(loads.mean(-1))
    return loads.std(-1) / np.where(mean == 0, 1, mean)
