"""The interval of a trained model's score over the rows that it is tested on."""

import numpy as np
from jaxtyping import Float

from moebius.lab.statistics.interval import Estimate, interval
from moebius.lab.statistics.wilson import wilson


def row_interval(scores: Float[np.ndarray, " T"], level: float = 0.95) -> Estimate:
    """The mean score of rows with its interval: how much it would differ on other rows like them.

    Wilson's interval for scores of 0 and 1, Student's for others. It holds the trained model fixed, and says nothing of
    how another training of the same model would score.

    Arguments:
        scores: of each row; at least one.
        level: of the interval, in (0, 1).

    Returns:
        The estimate, whose `count` is the number of rows.

    Raises:
        ArgumentError: as for `interval`.

    Example:
        >>> estimate = row_interval(np.array([1.0] * 60 + [0.0] * 40))
        >>> estimate.mean, round(estimate.low, 3), round(estimate.high, 3)
        (0.6, 0.502, 0.691)

    Reference: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference.
    """
    scores = np.asarray(scores, np.float64)
    if not len(scores) or not np.isin(scores, (0, 1)).all():
        return interval(scores.tolist(), level)
    share, low, high = wilson(len(scores), scores.sum(), level)
    return Estimate(float(share), float(np.median(scores)), float(low), float(high), len(scores))
