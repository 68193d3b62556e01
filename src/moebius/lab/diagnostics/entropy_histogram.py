"""Histograms of the gate entropies of single rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import entropies, known


def entropy_histogram(
    weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str], bins: int = 20
) -> pd.DataFrame:
    """Counts rows by how many experts they use: entropy 0 is one expert, ln E all of them alike.

    h(x) = −Σ_e p_e ln p_e,  p = |G(x)| / Σ_e |G(x)_e|;  exp(h) = effective number of experts of a row, in [1, E]

    Arguments:
        weights: gate weights; rows are normalised first.
        groups: index of each row's group into `names`.
        names: what the groups are called.
        bins: equal bins over [0, ln E]; with one expert there is the single bin [0, 0].

    Returns:
        Columns group, low, high (nats), experts_low, experts_high (the same as effective experts), rows, share.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
        >>> entropy_histogram(weights, np.array([0, 0, 0]), ["all"], bins=2)["rows"].tolist()
        [1, 2]

    Reference: ours.
    """
    known(groups, names)
    experts = weights.shape[1]
    top, bins = np.log(experts), bins if experts > 1 else 1
    edges = np.linspace(0.0, top, bins + 1)
    scaled_T = entropies(weights) * (bins / top if experts > 1 else 1.0)
    # Rows that use n experts alike lie on ln n up to rounding: a nudge keeps them in the bin that ln n opens.
    bin_T = np.clip(scaled_T + 1e-9, 0, bins - 1).astype(np.int64)
    rows_GB = np.bincount(groups * bins + bin_T, minlength=len(names) * bins).reshape(-1, bins)
    rows_G = rows_GB.sum(1)
    present = np.flatnonzero(rows_G)
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], bins),
            "low": np.tile(edges[:-1], len(present)),
            "high": np.tile(edges[1:], len(present)),
            "experts_low": np.tile(np.exp(edges[:-1]), len(present)),
            "experts_high": np.tile(np.exp(edges[1:]), len(present)),
            "rows": rows_GB[present].ravel(),
            "share": (rows_GB[present] / rows_G[present, None]).ravel(),
        }
    )
