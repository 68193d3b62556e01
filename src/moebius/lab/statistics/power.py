"""How many seeds a difference needs, and what a number of seeds can find."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from moebius.kit.errors import ArgumentError

# A search for a number of seeds ends here.
MOST_SEEDS = 1_000_000
# Quantiles of the chi-square distribution that stand for all of it.
QUANTILES = 4001


def power(difference: float, sd: float, seeds: int, level: float = 0.05) -> float:
    """The chance that the paired t test finds a true difference.

    1 − F(t) + F(−t) = E_u[Φ(λ − t u) + Φ(−λ − t u)],  F noncentral t with n − 1 degrees and λ = δ √n / σ,
    t = t_{1−α/2, n−1},  u² = s² / σ² ~ χ²_{n−1} / (n − 1)

    The expectation is a mean over quantiles of u: the series for F in SciPy give NaN for many of these numbers.

    Arguments:
        difference: δ, the true mean difference, in the unit of the score.
        sd: σ, the standard deviation over seeds of the paired differences, above 0.
        seeds: n, at least 2.
        level: α, in (0, 1); for m comparisons with Holm's correction α / m, that of its first step, which a single
            true difference has to pass.

    Raises:
        ArgumentError: a number is outside of its range.

    Example:
        >>> round(power(0.005, 0.006, 5), 2), round(power(0.005, 0.006, 14), 2)
        (0.3, 0.82)

    Reference: Johnson, Welch 1940, Applications of the Non-central t-Distribution.
    """
    _check(sd, level)
    if seeds < 2:
        raise ArgumentError("seeds", "needs at least 2", seeds, "seeds=5")
    from scipy.special import ndtr, stdtrit

    noncentrality = abs(difference) / sd * seeds**0.5
    bound = float(stdtrit(seeds - 1, 1 - level / 2)) * _estimates(seeds)
    return float((ndtr(noncentrality - bound) + ndtr(-noncentrality - bound)).mean())


def equivalence_power(margin: float, sd: float, seeds: int, level: float = 0.05, difference: float = 0.0) -> float:
    """The chance that `equivalence` calls two ways of training level.

    E_u[max(0, Φ((m − δ) √n / σ − t u) − Φ(−(m + δ) √n / σ + t u))],  u² = s² / σ² ~ χ²_{n−1} / (n − 1)

    Arguments:
        margin: m, above 0.
        sd, seeds, level: as for `power`; t is the quantile of level 1 − α.
        difference: δ, the true one.

    Raises:
        ArgumentError: a number is outside of its range.

    Example:
        >>> round(equivalence_power(0.005, 0.006, 5), 2), round(equivalence_power(0.005, 0.006, 14), 2)
        (0.16, 0.81)

    Reference: Phillips 1990, Power of the Two One-Sided Tests Procedure in Bioequivalence.
    """
    _check(sd, level)
    if not margin > 0:
        raise ArgumentError("margin", "needs a number above 0", margin, "margin=0.005")
    if seeds < 2:
        raise ArgumentError("seeds", "needs at least 2", seeds, "seeds=5")
    from scipy.special import ndtr, stdtrit

    width = float(stdtrit(seeds - 1, 1 - level)) * _estimates(seeds)
    scale = seeds**0.5 / sd
    inside = ndtr((margin - difference) * scale - width) - ndtr(-(margin + difference) * scale + width)
    return float(inside.clip(0).mean())


def seeds_needed(difference: float, sd: float, power_level: float = 0.8, level: float = 0.05) -> int:
    """The smallest number of seeds with which the paired t test finds a difference with this chance.

    Arguments:
        difference: the true one, not 0.
        sd, level: as for `power`.
        power_level: the chance, in (0, 1).

    Raises:
        ArgumentError: a number is outside of its range, or a million seeds are too few.

    Example:
        >>> seeds_needed(0.005, 0.006), seeds_needed(0.005, 0.006, level=0.05 / 13)
        (14, 25)

    Reference: as for `power`.
    """
    if not difference:
        raise ArgumentError("difference", "needs a number that is not 0", difference, "difference=0.005")
    _check_power(power_level)
    return _search(lambda seeds: power(difference, sd, seeds, level), power_level, difference)


def seeds_for_equivalence(margin: float, sd: float, power_level: float = 0.8, level: float = 0.05) -> int:
    """The smallest number of seeds with which equal ways of training are called level with this chance.

    Arguments:
        margin, sd, level: as for `equivalence_power`.
        power_level: the chance, in (0, 1).

    Raises:
        ArgumentError: as for `seeds_needed`.

    Example:
        >>> seeds_for_equivalence(0.005, 0.006)
        14
    """
    _check_power(power_level)
    return _search(lambda seeds: equivalence_power(margin, sd, seeds, level), power_level, margin)


def sd_interval(sd: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a standard deviation of normal values: few seeds say little of it.

    s √((n − 1) / χ²_{(1 ± level)/2, n−1})

    Arguments:
        sd: s, of `count` values, at least 2.
        level: in (0, 1).

    Raises:
        ArgumentError: a number is outside of its range.

    Example:
        >>> [round(end, 2) for end in sd_interval(1.0, 5)]
        [0.6, 2.87]

    Reference: Cochran 1934, The distribution of quadratic forms in a normal system.
    """
    _check(sd, level)
    if count < 2:
        raise ArgumentError("count", "needs at least 2 values", count, "sd_interval(0.006, 5)")
    from scipy.special import chdtri

    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = (sd * ((count - 1) / float(chdtri(count - 1, tail))) ** 0.5 for tail in tails)
    return low, high


def _estimates(seeds: int) -> Float[np.ndarray, " Q"]:
    """Quantiles of s / σ, the standard deviation of normal values beside the true one."""
    # scipy.stats takes 0.6 s to import.
    from scipy.special import chdtri

    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return (chdtri(seeds - 1, shares) / (seeds - 1)) ** 0.5


def _search(chance: Callable[[int], float], power_level: float, difference: float) -> int:
    """The smallest number from 2 whose chance is at least this; the chance rises with the number."""
    high = 2
    while chance(high) < power_level:
        high *= 2
        if high > MOST_SEEDS:
            rule = f"needs more than {MOST_SEEDS:,} seeds, so it is too small to be found"
            raise ArgumentError("difference", rule, difference, f"difference={abs(difference) * 100:g}")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= power_level else (middle, high)
    return max(high, 2)


def _check(sd: float, level: float) -> None:
    if not sd > 0:
        raise ArgumentError("sd", "needs a standard deviation above 0", sd, "sd=0.006")
    if not 0 < level < 1:
        raise ArgumentError("level", "needs a number between 0 and 1", level, "level=0.05")


def _check_power(power_level: float) -> None:
    if not 0 < power_level < 1:
        raise ArgumentError("power", "needs a number between 0 and 1", power_level, "power=0.8")
