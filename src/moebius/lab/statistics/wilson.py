"""The interval of a share of many rows."""

from typing import Any

import numpy as np
from scipy.special import ndtri


def wilson(count: Any, hits: Any, level: float = 0.95) -> tuple[Any, Any, Any]:
    """A share and its interval, from the number of rows and of those that count.

    (p + z²/2n ± z √(p (1 − p)/n + z²/4n²)) / (1 + z²/n)

    Arguments:
        count, hits: arrays of one shape, or numbers; the count is 1 at least.
        level: of the interval, in (0, 1).

    Example:
        >>> [round(float(end), 3) for end in wilson(10, 0)]
        [0.0, 0.0, 0.278]

    Reference: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference. Its intervals are
    shorter than Clopper and Pearson's, and cover the true share 95 % of the time on average, not at least.
    """
    count, hits = np.asarray(count, float), np.asarray(hits, float)
    z, share = -ndtri((1 - level) / 2), hits / count
    centre, scale = share + z**2 / (2 * count), 1 + z**2 / count
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At the ends the centre equals the half-width but for rounding.
    return share, np.clip((centre - half) / scale, 0, share), np.clip((centre + half) / scale, share, 1)
