"""A stratified split: the same share of every class is held out."""

from numbers import Real

import numpy as np
from jaxtyping import Bool, Int

from moebius.kit.errors import ArgumentError


def check_share(share: float, argument: str = "share") -> float:
    """Return `share` if it lies strictly between 0 and 1; the error calls it `argument`."""
    if not isinstance(share, Real) or not 0 < share < 1:
        raise ArgumentError(argument, "must lie between 0 and 1", share, f"{argument}: 0.2")
    return share


def mark_test_rows(labels: Int[np.ndarray, "T"], share: float, seed: int = 0) -> Bool[np.ndarray, "T"]:
    """Mark the rows to test on: of n rows of a class round(share · n), at least 1 and at most n − 1.

    Arguments:
        labels: (T,), class of each row.
        share: share of each class to mark, strictly between 0 and 1.
        seed: seed of the random choice; the same seed and labels mark the same rows.

    Returns:
        (T,), True for the rows to test on.

    Raises:
        ArgumentError: `share` does not lie strictly between 0 and 1.

    Example:
        >>> int(mark_test_rows(np.array([0, 0, 0, 1, 1, 1]), 1 / 3).sum())
        2
    """
    check_share(share)
    generator = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        # At least one row of the class remains to train on.
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        is_test[rows[:count]] = True
    return is_test
