"""Collapse: experts that a gate leaves unused."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.lab.diagnostics.activation import activation
from moebius.lab.diagnostics.load import load


def collapse(
    weights: Float[np.ndarray, "T E"],
    groups: Int[np.ndarray, " T"],
    names: Sequence[str],
    floor: float = 0.02,
    nothing: float = 1e-3,
) -> pd.DataFrame:
    """Which experts win hardly any row, and which get hardly any weight at all.

    starved_e: load_e < floor;  ignored_e: Σ_S rate(S, e) < nothing, over all groups S

    An expert can be starved and not ignored: it may weigh .4 everywhere and win nowhere.

    Arguments:
        weights: gate weights of at least one row.
        groups: index of each row's group (its data set) into `names`.
        names: what the groups are called.
        floor: share of rows below which an expert counts as starved.
        nothing: sum of activation rates that counts as zero.

    Returns:
        Columns expert, load, rates (their sum over the groups), starved, ignored. With one expert neither is true.

    Example:
        >>> weights = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0]])
        >>> collapse(weights, np.array([0, 1]), ["mnist", "cifar"])[["starved", "ignored"]].values.tolist()
        [[False, False], [True, False], [True, True]]

    Reference: ours; *ignored* as in study 2, *starved* as in study 5.
    """
    rates_GE = np.asarray(activation(weights, groups, names)["rate"]).reshape(-1, weights.shape[1])
    rates_E = rates_GE.sum(0)
    frame = load(weights)[["expert", "load"]]
    several = len(frame) > 1
    return frame.assign(
        rates=rates_E,
        starved=(frame["load"] < floor) & several,
        ignored=(rates_E < nothing) & several,
    )
