"""Intervals of means, from sums."""

from typing import Any

import numpy as np
from scipy.special import stdtrit

# Half of the 5 % that an interval leaves out.
TAIL = 0.025


def mean_interval(count: Any, total: Any, squares: Any) -> tuple[Any, Any, Any]:
    """Mean and 95 % Student-t interval of values, from their number, sum and sum of squares.

    mean ± t_{n−1} · √((Σ v² − n · mean²) / (n − 1) / n);  one value has no spread, and the interval is all numbers

    Arguments:
        count, total, squares: arrays of one shape, or numbers; the count is 1 at least.

    Example:
        >>> [round(float(end), 2) for end in mean_interval(3, 6.0, 14.0)]
        [2.0, -0.48, 4.48]

    Reference: Student 1908.
    """
    count, total, squares = (np.asarray(value, float) for value in (count, total, squares))
    mean = total / count
    several = np.maximum(count - 1, 1)
    half = stdtrit(several, 1 - TAIL) * np.sqrt(np.maximum(squares - count * mean**2, 0) / several / count)
    half = np.where(count > 1, half, np.inf)
    return mean, mean - half, mean + half
