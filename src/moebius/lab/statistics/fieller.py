"""The interval of a ratio of two means whose values come in pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class Ratio:
    """The ratio of two means, with its confidence interval.

    Arguments:
        value: the ratio of the means.
        low, high: ends of the interval; both None where it is unbounded.
    """

    value: float
    low: float | None
    high: float | None


def fieller(
    over: Sequence[float] | Mapping[Any, float], under: Sequence[float] | Mapping[Any, float], level: float = 0.95
) -> Ratio | None:
    """The ratio of two means, E[x] / E[y], with Fieller's interval: every θ with which x − θ y may have the mean 0.

    (x̄ − θ ȳ)² ≤ t²_{(1+level)/2, n−1} (s_xx − 2 θ s_xy + θ² s_yy) / n

    The interval is bounded exactly where the denominator's own interval leaves 0 out. Where it does not, the ratio may
    be anything, however many decimals its estimate has.

    Arguments:
        over, under: values x of the numerator and y of the denominator, in the same order; or by seed, of which those
            that both have count.
        level: of the interval, in (0, 1).

    Returns:
        The ratio; None with fewer than two pairs, and where the denominator's mean is 0.

    Raises:
        ArgumentError: sequences are of different lengths, or a level is outside (0, 1).

    Example:
        >>> ratio = fieller([0.011, 0.013, 0.012], [0.010, 0.012, 0.011])
        >>> round(ratio.value, 2), round(ratio.low, 2), round(ratio.high, 2)
        (1.09, 1.07, 1.12)
        >>> fieller([0.011, 0.013, 0.012], [0.01, -0.012, 0.011]).low is None
        True

    Reference: Fieller 1954, Some Problems in Interval Estimation.
    """
    if isinstance(over, Mapping) and isinstance(under, Mapping):
        keys = [key for key in over if key in under]
        over, under = [over[key] for key in keys], [under[key] for key in keys]
    x, y = np.asarray(list(over), float), np.asarray(list(under), float)
    if len(x) != len(y):
        raise ArgumentError(
            "under", f"needs a value for each of the {len(x)} of over", len(y), "fieller(x, y[: len(x)])"
        )
    if not 0 < level < 1:
        raise ArgumentError("level", "needs a number between 0 and 1", level, "level=0.95")
    if len(x) < 2 or not y.mean():
        return None
    # scipy.stats takes 0.6 s to import.
    from scipy.special import stdtrit

    value, covariance = float(x.mean() / y.mean()), np.cov(x, y)
    factor = float(stdtrit(len(x) - 1, (1 + level) / 2)) ** 2 / len(x)
    a = y.mean() ** 2 - factor * covariance[1, 1]
    b = x.mean() * y.mean() - factor * covariance[0, 1]
    c = x.mean() ** 2 - factor * covariance[0, 0]
    if a <= 0:
        return Ratio(value, None, None)
    # Rounding may leave a discriminant of 0 slightly below it.
    root = max(b**2 - a * c, 0.0) ** 0.5
    return Ratio(value, float((b - root) / a), float((b + root) / a))
