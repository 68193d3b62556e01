"""The difference of two trained models over rows that both were tested on."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from moebius.lab.statistics.difference import Difference, paired
from moebius.lab.statistics.mcnemar import mcnemar


def paired_rows(a: Float[np.ndarray, " T"], b: Float[np.ndarray, " T"], level: float = 0.95) -> Difference:
    """The mean of a − b over rows: how much these two models would differ on other rows like them.

    The interval is Student's for the T differences, as in `paired`. For scores of 0 and 1 the p value is McNemar's,
    which is right for few rows, too.

    Arguments:
        a, b: score of each row; of several trainings of a model, their mean.
        level: as for `paired`.

    Raises:
        ArgumentError: as for `paired`.

    Example:
        >>> a, b = np.array([1.0] * 8 + [0.0] * 2), np.array([1.0] * 5 + [0.0] * 5)
        >>> difference = paired_rows(a, b)
        >>> round(difference.mean, 2), difference.p
        (0.3, 0.125)

    Reference: Dietterich 1998, Approximate Statistical Tests for Comparing Supervised Classification Learning
    Algorithms, section 3.1, for McNemar's test of two trained models.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference = paired(a.tolist(), b.tolist(), level)
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        return replace(difference, p=mcnemar(int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())))
    return difference
