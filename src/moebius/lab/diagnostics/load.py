"""Load and importance: how many rows and how much weight each expert gets."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from moebius.lab.diagnostics._arrays import check_finite, row_wins
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows


def load(weights: Float[np.ndarray, "T E"]) -> pd.DataFrame:
    """How many rows each expert wins and how much weight it gets.

    load_e = share of rows whose largest weight is e (a tie divides the row);  importance_e = mean_i G(x_i)_e

    Arguments:
        weights: gate weights of at least one row.

    Returns:
        Columns expert, load, importance. Σ_e load_e = 1.

    Example:
        >>> load(np.array([[0.75, 0.25], [1.0, 0.0]]))
           expert  load  importance
        0       0   1.0       0.875
        1       1   0.0       0.125

    Reference: Shazeer et al. 2017, arXiv:1701.06538, section 4 (their importance is the sum over the batch, ours the
    mean; their load is a smooth estimate, ours the count).
    """
    return pd.DataFrame(
        {
            "expert": np.arange(weights.shape[1]),
            "load": row_wins(weights).mean(0),
            "importance": check_finite(weights).mean(0, dtype=np.float64),
        }
    )


def table(rows: GateRows) -> Frame:
    """Load and importance over the split."""
    return load(rows.weights)
