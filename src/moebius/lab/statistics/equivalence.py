"""Whether two ways of training are level, which a test that finds no difference does not show."""

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.difference import Difference


def equivalence(difference: Difference, margin: float) -> float | None:
    """The p value of two one-sided tests: the hypothesis is that the true difference is the margin or more, either way.

    p = max(P(T_{n−1} ≥ (d̄ + margin) √n / s), P(T_{n−1} ≤ (d̄ − margin) √n / s))

    At the level α it is below α exactly where the interval with level 1 − 2 α lies inside (−margin, margin).

    Arguments:
        difference: of `paired` or `paired_rows`.
        margin: the smallest difference that would matter, in the unit of the score, above 0; chosen before the results
            are seen.

    Returns:
        The p value; None for a difference without spread, which cannot be tested.

    Raises:
        ArgumentError: the margin is not above 0.

    Example:
        >>> from moebius.lab.statistics.difference import paired
        >>> difference = paired([0.701, 0.705, 0.703, 0.702], [0.702, 0.703, 0.703, 0.703])
        >>> round(equivalence(difference, 0.005), 3), round(equivalence(difference, 0.001), 3)
        (0.003, 0.126)

    Reference: Schuirmann 1987, A Comparison of the Two One-Sided Tests Procedure and the Power Approach for Assessing
    the Equivalence of Average Bioavailability.
    """
    if not margin > 0:
        raise ArgumentError("margin", "needs a number above 0", margin, "margin=0.005")
    if difference.sd is None:
        return None
    # scipy.stats takes 0.6 s to import.
    from scipy.special import stdtr

    error = difference.sd / difference.count**0.5
    return float(stdtr(difference.count - 1, (abs(difference.mean) - margin) / error))
