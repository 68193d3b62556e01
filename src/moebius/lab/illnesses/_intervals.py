"""Intervals of means and shares over rows.

They are at 99 %, so that of a hundred tests of a healthy mixture about one oversteps its null by chance; an illness
needs an effect that matters besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri
from torch import Tensor

from moebius.lab.statistics.clopper_pearson import clopper_pearson

LEVEL = 0.99
# Fewer rows than this have no interval that the normal distribution describes.
FEWEST_ROWS = 20


@dataclass(frozen=True)
class Mean:
    """A mean over rows.

    Arguments:
        value: the mean.
        low, high: its interval.
        count: of rows.
    """

    value: float
    low: float
    high: float
    count: int


def mean_interval(values: Tensor, comparisons: int = 1) -> Mean:
    """The mean of a number per row, with its normal interval; without bounds for a single row.

    mean ± z · s / √T, with z for the level 1 − .01 / comparisons (Bonferroni)

    Arguments:
        values: (T,).
        comparisons: how many means are looked at to find the most striking one.

    Example:
        >>> import torch
        >>> mean_interval(torch.tensor([1.0, 3.0] * 50)).value
        2.0
    """
    values = values.double()
    count, mean = len(values), float(values.mean())
    if count < 2:
        return Mean(mean, float("-inf"), float("inf"), count)
    half = float(ndtri(1 - (1 - LEVEL) / 2 / comparisons)) * float(values.std()) / count**0.5
    return Mean(mean, mean - half, mean + half, count)


def share_interval(successes: float | int, count: float | int, comparisons: int = 1) -> Mean:
    """A share of rows with its exact interval, that of `clopper_pearson`.

    Arguments:
        successes: of `count`; sums of weights are taken for numbers of rows.
        count: of rows, above 0.
        comparisons: as for `mean_interval`.

    Example:
        >>> share = share_interval(0, 100)
        >>> share.low, round(share.high, 3)
        (0.0, 0.052)
    """
    low, high = clopper_pearson(successes, count, 1 - (1 - LEVEL) / comparisons)
    return Mean(successes / count, low, high, int(count))


def list_experts(experts: Sequence[int], most: int = 6) -> str:
    """The numbers of experts in words: "expert 1", "experts 0, 3 and 5", "experts 0, 1, 2 and 61 more"."""
    names = [str(expert) for expert in experts]
    if len(names) == 1:
        return f"expert {names[0]}"
    if len(names) > most:
        names = [*names[:3], f"{len(names) - 3} more"]
    return f"experts {', '.join(names[:-1])} and {names[-1]}"


def percent(value: float | int) -> str:
    """A share in words: "12 %", ".3 %"."""
    return f"{100 * value:.0f} %" if value >= 0.095 or value == 0 else f"{100 * value:.2g} %"
