"""Flow of the rows of each data set and class to the experts of a gate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics._arrays import check_indices, row_shares, sum_by_group
from moebius.lab.report.frames import Frame
from moebius.lab.report.gate_rows import GateRows

# With more classes their stage cannot be read, and rows are counted by data set alone.
MOST_CLASSES = 20


def class_flow(weights: Float[np.ndarray, "T E"], groups: Int[np.ndarray, " T"], names: Sequence[str]) -> pd.DataFrame:
    """How the rows of each group are shared out among the experts.

    share(S, e) = mean over x in S of |G(x)_e| / Σ_j |G(x)_j|;  Σ_e share = 1 but for rows of which all weights are 0

    Arguments:
        weights: gate weights.
        groups: index of each row's group into `names`.
        names: names of the groups.

    Returns:
        Columns group, expert, rows (of the group), share; groups without rows are left out.

    Example:
        >>> frame = class_flow(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0, 0]), ["cat"])
        >>> frame["share"].tolist()
        [0.75, 0.25]

    Reference: ours.
    """
    check_indices(groups, names)
    sums_GE, rows_G = sum_by_group(row_shares(weights), groups, len(names))
    present, experts = np.flatnonzero(rows_G), weights.shape[1]
    return pd.DataFrame(
        {
            "group": np.repeat(np.asarray(names, dtype=object)[present], experts),
            "expert": np.tile(np.arange(experts), len(present)),
            "rows": np.repeat(rows_G[present], experts),
            "share": (sums_GE[present] / rows_G[present, None]).ravel(),
        }
    )


def table(rows: GateRows) -> Frame | None:
    """The flow of test rows, by data set and class; columns domain and class instead of group."""
    if rows.split != "test" or rows.weights.shape[1] < 2:
        return None
    has_classes = 1 < len(rows.class_names) <= MOST_CLASSES
    classes = rows.class_names if has_classes else ("",)
    labels = np.asarray(rows.labels).astype(np.int64) if has_classes else np.zeros(len(rows.domains), np.int64)
    kept = (labels >= 0) & (labels < len(classes))
    pairs = [(domain, name) for domain in rows.domain_names for name in classes]
    groups = (rows.domains * len(classes) + labels)[kept]
    if not len(groups):
        return None
    frame = class_flow(rows.weights[kept], groups, [str(place) for place in range(len(pairs))])
    places = frame.pop("group").astype(int)
    frame.insert(0, "class", [pairs[place][1] for place in places])
    frame.insert(0, "domain", [pairs[place][0] for place in places])
    return frame
