"""Activation rates."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import by_group, finite, known


def activation(weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str]) -> pd.DataFrame:
    """How much each group of rows (a data set, a class) uses each expert.

    rate(S, e) = mean over x in S of G(x)_e;  Σ_e rate(S, e) = 1 for gates that are distributions

    Arguments:
        weights: gate weights.
        groups: index of each row's group into `names`.
        names: what the groups are called.

    Returns:
        Columns group, expert, rate, rows (how many the group has); groups without rows are left out.

    Example:
        >>> weights = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
        >>> activation(weights, np.array([0, 0, 1]), ["mnist", "cifar"])["rate"].tolist()
        [0.75, 0.25, 0.0, 1.0]

    Reference: ours; the activation rate of studies 1 and 2.
    """
    experts = weights.shape[1]
    sums_GE, rows_G = by_group(finite(weights), known(groups, names), len(names))
    present = np.flatnonzero(rows_G)
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], experts),
            "expert": np.tile(np.arange(experts), len(present)),
            "rate": (sums_GE[present] / rows_G[present, None]).ravel(),
            "rows": np.repeat(rows_G[present], experts),
        }
    )
