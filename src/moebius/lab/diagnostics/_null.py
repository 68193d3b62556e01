"""What chance gives: loads of a router that spreads rows at random, and the information that two labels share."""

from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import xlogy

# Tables of loads that are drawn: the standard error of a 97.5 % quantile is a hundredth of its rank.
DRAWS = 400
# Selections that are drawn row by row at most; of more rows, a multinomial with the same covariance.
MOST_SELECTIONS = 2_000_000
# Rows up to which the expected information is summed exactly.
MOST_EXACT_ROWS = 20_000


@lru_cache(maxsize=64)
def balanced_loads(rows: int, experts: int, k: int) -> Float[np.ndarray, "N E"]:
    """Rows of each expert under a random balanced router, drawn N times: each row takes k of the E experts at random.

    The seed is fixed. For k = 1 they are multinomial. For k > 1 and many rows a multinomial of T·k draws is shrunk to
    the covariance of selections without replacement, by √((E − k) / (E − 1)).

    Arguments:
        rows: T.
        experts: E.
        k: experts of each row, 1 to E.

    Example:
        >>> balanced_loads(1000, 4, 2).mean(0).round(-1).tolist()
        [500.0, 500.0, 500.0, 500.0]
    """
    loads = _draw_loads(rows, experts, k)
    loads.setflags(write=False)
    return loads


def _draw_loads(rows: int, experts: int, k: int) -> Float[np.ndarray, "N E"]:
    random = np.random.default_rng(0)
    if k >= experts:
        return np.full((DRAWS, experts), float(rows))
    if k > 1 and rows * experts * DRAWS <= MOST_SELECTIONS:
        order = random.random((DRAWS, rows, experts)).argpartition(k, 2)[:, :, :k]
        return np.stack([np.bincount(draw.ravel(), minlength=experts) for draw in order]).astype(float)
    loads = random.multinomial(rows * k, np.full(experts, 1 / experts), DRAWS).astype(float)
    mean = rows * k / experts
    return loads if k == 1 else mean + (loads - mean) * np.sqrt((experts - k) / (experts - 1))


def quantiles(values: Float[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Mean, and the range that holds 95 % of the values."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def entropy_of(counts: Float[np.ndarray, "... N"]) -> Any:
    """Entropy in nats of counts along the last axis; 0 where all of them are 0."""
    total = counts.sum(-1, keepdims=True)
    shares = counts / np.where(total > 0, total, 1)
    return -xlogy(shares, shares).sum(-1)


def information_of(counts: Float[np.ndarray, "G E"]) -> float:
    """Mutual information in nats of the two labels of a table of counts."""
    return float(max(0.0, entropy_of(counts.sum(0)) + entropy_of(counts.sum(1)) - entropy_of(counts.ravel())))


def expected_information(counts: Float[np.ndarray, "G E"]) -> float:
    """The mean mutual information of labels with these frequencies that are assigned at random.

    Up to 20,000 rows it is exact, the mean over all permutations; of more rows (E' − 1)(G' − 1) / 2T, where E' and G'
    count the labels that occur.

    Reference: Vinh, Epps, Bailey 2010, JMLR 11; Miller 1955 for many rows.
    """
    rows = int(counts.sum())
    groups, experts = (counts.sum(axis) > 0 for axis in (1, 0))
    if rows > MOST_EXACT_ROWS:
        return float((groups.sum() - 1) * (experts.sum() - 1) / (2 * rows))
    from sklearn.metrics.cluster import expected_mutual_information

    present = counts[groups][:, experts].round().astype(np.int64)
    return float(expected_mutual_information(present, rows)) if rows else 0.0
