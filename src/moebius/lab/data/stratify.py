"""A fixed share of every class."""

from numbers import Real

import numpy as np
from jaxtyping import Bool, Int

from moebius.kit.errors import ArgumentError


def check_share(share: float) -> float:
    """`share` if it lies strictly between 0 and 1."""
    if not isinstance(share, Real) or not 0 < share < 1:
        raise ArgumentError("share", "must lie between 0 and 1", share, "share: 0.2")
    return share


def held_out(labels: Int[np.ndarray, "T"], share: float, seed: int = 0) -> Bool[np.ndarray, "T"]:
    """Mark the rows to test on: of each class the share nearest to `share`, but at least one row.

    Arguments:
        labels: (T,) class of each row.
        share: between 0 and 1.
        seed: the same seed and labels mark the same rows.

    Raises:
        ArgumentError: when `share` is not strictly between 0 and 1.

    Example:
        >>> int(held_out(np.array([0, 0, 0, 1, 1, 1]), 1 / 3).sum())
        2
    """
    check_share(share)
    generator = np.random.default_rng(seed)
    mark = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        # One row at least stays to train on.
        mark[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return mark
