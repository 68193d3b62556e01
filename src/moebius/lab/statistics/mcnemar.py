"""McNemar's test: two classifiers on the same rows."""

from moebius.kit.errors import ArgumentError


def mcnemar(only_a: int, only_b: int) -> float:
    """The p value of two classifiers being right equally often, by the rows on which exactly one of them is right.

    p = 2 P(X ≤ m) − P(X = m),  m = min(only_a, only_b),  X ~ Binomial(only_a + only_b, ½)

    This is the mid-p value: the exact test, which counts P(X = m) in full, rejects true hypotheses far too seldom.

    Arguments:
        only_a: number of rows on which the first alone is right.
        only_b: number of rows on which the second alone is right.

    Returns:
        The two-sided p value; 1 where there are no such rows.

    Raises:
        ArgumentError: a number is below 0.

    Example:
        >>> round(mcnemar(15, 5), 4), mcnemar(3, 3), mcnemar(0, 0)
        (0.0266, 1.0, 1.0)

    Reference: McNemar 1947, Note on the sampling error of the difference between correlated proportions or percentages;
    Fagerland, Lydersen, Laake 2013, The McNemar test for binary matched-pairs data: mid-p and asymptotic are better
    than exact conditional.
    """
    if min(only_a, only_b) < 0:
        raise ArgumentError("only_a", "needs numbers of at least 0", (only_a, only_b), "mcnemar(15, 5)")
    count, least = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    from scipy.special import bdtr

    below = float(bdtr(least - 1, count, 0.5)) if least else 0.0
    return min(1.0, float(bdtr(least, count, 0.5)) + below)
