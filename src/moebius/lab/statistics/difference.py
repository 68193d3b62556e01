"""The difference of two measures whose values come in pairs: by seed, or by row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.interval import interval


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, with its confidence interval and p value.

    Arguments:
        mean: of the differences.
        low: lower end of the interval; None where there is no spread: one pair, or differences that are all equal.
        high: upper end of the interval; None likewise.
        p: two-sided, of the hypothesis that the true mean is 0; None likewise, but 1 where all differences are 0.
        count: number of pairs.
        sd: standard deviation of the differences; None where `low` is.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    count: int
    sd: float | None = None


def paired(
    a: Sequence[float] | Mapping[Any, float], b: Sequence[float] | Mapping[Any, float], level: float = 0.95
) -> Difference:
    """The mean of a − b over pairs, with Student's paired t interval and test.

    d_i = a_i − b_i;  d̄ ± t_{(1+level)/2, n−1} · s / √n;  p = 2 P(T_{n−1} ≥ |d̄| √n / s)

    Over seeds it says how the difference of two ways of training varies with the training, on the same rows; over rows,
    how the difference of two trained models varies with the rows. Pairs make both sharper than two separate intervals,
    because what is hard for both (a seed's order of rows, a hard row) leaves the difference.

    Arguments:
        a, b: values in the same order; or by seed, of which those that both have count.
        level: share of such intervals that cover the true mean, in (0, 1).

    Returns:
        The difference. Differences without spread have no interval: a test would call each of them certain, and two
        seeds whose rounded scores differ by the same are no certainty.

    Raises:
        ArgumentError: there is no pair, sequences are of different lengths, or a level is outside (0, 1).

    Example:
        >>> difference = paired({0: 0.64, 1: 0.66, 2: 0.65}, {0: 0.62, 1: 0.63, 2: 0.64})
        >>> round(difference.mean, 3), round(difference.p, 3), difference.count
        (0.02, 0.074, 3)

    Reference: Student 1908, The Probable Error of a Mean, section IX.
    """
    differences, rounding = _differences(a, b), _rounding(a, b)
    estimate = interval(differences, level)
    mean = estimate.mean if abs(estimate.mean) > rounding else 0.0
    if estimate.low is None or estimate.high is None or estimate.high - estimate.low <= rounding:
        return Difference(mean, None, None, 1.0 if not mean else None, estimate.count)
    # scipy.stats takes 0.6 s to import.
    from scipy.special import stdtr, stdtrit

    half = (estimate.high - estimate.low) / 2
    error = half / float(stdtrit(estimate.count - 1, (1 + level) / 2))
    p = 2 * float(stdtr(estimate.count - 1, -abs(mean) / error))
    return Difference(mean, estimate.low, estimate.high, p, estimate.count, error * estimate.count**0.5)


def _differences(a: Any, b: Any) -> list[float]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [key for key in a if key in b]
        a, b = [a[key] for key in keys], [b[key] for key in keys]
    if len(a) != len(b):
        raise ArgumentError("b", f"needs a value for each of the {len(a)} of a", len(b), "paired(a, b[: len(a)])")
    if not len(a):
        raise ArgumentError("b", "needs a value that is paired with one of a", [], "paired({0: 0.64}, {0: 0.62})")
    return [float(first) - float(second) for first, second in zip(a, b, strict=True)]


def _rounding(a: Any, b: Any) -> float:
    """What the subtraction of such values may leave by rounding: differences that are equal differ by so much."""
    values = [*(a.values() if isinstance(a, Mapping) else a), *(b.values() if isinstance(b, Mapping) else b)]
    return 64 * math.ulp(max(map(abs, values)))
