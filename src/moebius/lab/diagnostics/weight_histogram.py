"""Histograms of the gate weights of single rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import ROUNDING, finite, known


def weight_histogram(
    weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str], bins: int = 20
) -> pd.DataFrame:
    """Counts each expert's weight row by row: does *one image* use one expert, where the mean over a group hides it?

    share(S, e, b) = |{x in S: low_b ≤ G(x)_e < high_b}| / |S|;  Σ_b share = 1; the last bin includes its upper end

    Arguments:
        weights: gate weights.
        groups: index of each row's group into `names`.
        names: what the groups are called.
        bins: equal bins over [0, 1], or from the smallest to the largest weight where a gate leaves that range.

    Returns:
        Columns group, expert, low, high, rows, share; groups without rows are left out.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.6, 0.4]])
        >>> weight_histogram(weights, np.array([0, 0]), ["all"], bins=2)["rows"].tolist()
        [0, 2, 2, 0]

    Reference: ours.
    """
    finite(weights)
    known(groups, names)
    low, high = (float(weights.min()), float(weights.max())) if weights.size else (0.0, 1.0)
    low, high = low if low < -ROUNDING else 0.0, high if high > 1 + ROUNDING else 1.0
    experts, edges = weights.shape[1], np.linspace(low, high, bins + 1)
    bin_TE = np.clip((weights.astype(np.float64) - low) * (bins / (high - low)), 0, bins - 1).astype(np.int64)
    rows_GEB = np.stack(
        [np.bincount(groups * bins + column, minlength=len(names) * bins).reshape(-1, bins) for column in bin_TE.T], 1
    )
    rows_G = np.bincount(groups, minlength=len(names))
    present = np.flatnonzero(rows_G)
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], experts * bins),
            "expert": np.tile(np.repeat(np.arange(experts), bins), len(present)),
            "low": np.tile(edges[:-1], len(present) * experts),
            "high": np.tile(edges[1:], len(present) * experts),
            "rows": rows_GEB[present].ravel(),
            "share": (rows_GEB[present] / rows_G[present, None, None]).ravel(),
        }
    )
