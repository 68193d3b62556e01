"""Histogram of the largest gate weight of each row."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from moebius.lab.diagnostics._arrays import row_shares
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows


def largest_weight(weights: Float[np.ndarray, "T E"], bins: int = 20) -> pd.DataFrame:
    """Count rows by the share of their weight that one expert has: 1 for rows of one expert, 1/E for those of all.

    top(x) = max_e |G(x)_e| / Σ_j |G(x)_j|;  share(b) = |{x: low_b ≤ top(x) < high_b}| / T; the last bin includes 1

    Arguments:
        weights: gate weights.
        bins: equal bins over [0, 1].

    Returns:
        Columns low, high, rows, share.

    Example:
        >>> largest_weight(np.array([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5]]), bins=2)["rows"].tolist()
        [0, 3]

    Reference: ours.
    """
    edges = np.linspace(0, 1, bins + 1)
    # A half is in the bin that begins with it, however it was rounded.
    bin_T = np.clip(row_shares(weights).max(1) * bins + 1e-6, 0, bins - 1).astype(np.int64)
    rows_B = np.bincount(bin_T, minlength=bins)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": rows_B, "share": rows_B / max(len(weights), 1)})


def table(rows: GateRows) -> Frame | None:
    """The histogram of a gate of several experts."""
    return largest_weight(rows.weights) if rows.weights.shape[1] > 1 else None
