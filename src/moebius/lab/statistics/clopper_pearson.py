"""The exact interval of a share."""

from moebius.kit.errors import ArgumentError


def clopper_pearson(successes: float | int, count: float | int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share of seeds or rows; it covers the true share at least as often as its level says.

    low = B(α/2; x, n − x + 1),  high = B(1 − α/2; x + 1, n − x),  with quantiles B of the beta distribution

    It says something where x is 0 or n, too: 0 of 5 collapsed seeds allow a true share of up to 52 %. A bound on one
    side alone is an end of the interval with twice the α: `clopper_pearson(0, 20, 0.90)` ends at 14 %.

    Arguments:
        successes: x, from 0 to `count`; sums of weights are taken for numbers.
        count: n, above 0.
        level: 1 − α, in (0, 1).

    Raises:
        ArgumentError: a number is outside of its range.

    Example:
        >>> [round(end, 3) for end in clopper_pearson(0, 5)]
        [0.0, 0.522]

    Reference: Clopper, Pearson 1934, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial.
    """
    if count <= 0 or not 0 <= successes <= count:
        rule = "needs numbers from 0 to a count above 0"
        raise ArgumentError("successes", rule, (successes, count), "clopper_pearson(0, 5)")
    if not 0 < level < 1:
        raise ArgumentError("level", "needs a number between 0 and 1", level, "level=0.95")
    # scipy.stats takes 0.6 s to import.
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(successes, count - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, count - successes, 1 - tail)) if successes < count else 1.0
    return low, high
