"""Intervals of means and shares, from sums."""

from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

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


def share_interval(count: Any, hits: Any) -> tuple[Any, Any, Any]:
    """A share and its 95 % interval, from the number of cases and of those that count.

    Arguments:
        count, hits: arrays of one shape, or numbers; the count is 1 at least.

    Example:
        >>> [round(float(end), 3) for end in share_interval(10, 0)]
        [0.0, 0.0, 0.278]

    Reference: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    count, hits = np.asarray(count, float), np.asarray(hits, float)
    z, share = -ndtri(TAIL), hits / count
    centre, scale = share + z**2 / (2 * count), 1 + z**2 / count
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At the ends the centre equals the half-width but for rounding.
    return share, np.clip((centre - half) / scale, 0, share), np.clip((centre + half) / scale, share, 1)
