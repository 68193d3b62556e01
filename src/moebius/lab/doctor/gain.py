"""What a changed model gains on rows: the paired difference of a figure, with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Shaped
from scipy.special import stdtrit
from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True)
class Gain:
    """A figure of the same rows before and after, and their mean difference.

    Arguments:
        name: of the figure.
        before, after: means over the rows.
        value: after − before for a score, before − after for a loss: above 0 is better.
        low, high: its interval at 95 %.
    """

    name: str
    before: float
    after: float
    value: float
    low: float
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    def text(self) -> str:
        """The gain in words.

        Example:
            >>> Gain("accuracy", 0.8, 0.9, 0.1, 0.05, 0.15).text()
            'accuracy 0.800 → 0.900: +0.100 [+0.050, +0.150]'
        """
        change = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.name} {self.before:.3f} → {self.after:.3f}: {change}"

    def to_dict(self) -> Mapping[str, Any]:
        """All fields, as they go into JSON."""
        return dict(vars(self))


def paired_gain(
    name: str, before: Shaped[Tensor, " T"], after: Shaped[Tensor, " T"], less_is_better: bool = False
) -> Gain | None:
    """The mean gain over rows with its interval; None where it is not finite.

    d ± t · √((Σ (d_i − d)² + 2 s²) / n) / √n,  n = T + 2

    d_i are the differences of the rows, and t is that of Student's distribution for T − 1. Two further rows are added,
    one better and one worse by s, so that no interval is empty where no row happens to change: s is 1/√2 for scores
    that are right or wrong (the interval of Agresti and Min, which adds a half to each cell of the table), else the
    standard deviation of the figure.

    Arguments:
        name: of the figure.
        before, after: the figure of each row.
        less_is_better: for a loss.

    Example:
        >>> right = torch.tensor([True, False] * 50)
        >>> gain = paired_gain("accuracy", right, torch.ones(100, dtype=torch.bool))
        >>> round(gain.value, 2), gain.low < 0.5 < gain.high
        (0.5, True)
        >>> paired_gain("accuracy", right, right).high > 0
        True

    Reference: Agresti, Min 2005, Simple improved confidence intervals for comparing matched proportions, Statistics in
    Medicine 24, section 2; for other figures ours.
    """
    first, second = before.double(), after.double()
    count = len(first)
    if count < 2 or not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
        return None
    differences = first - second if less_is_better else second - first
    spread = 0.5**0.5 if before.dtype == torch.bool else float(first.std())
    value = float(differences.mean())
    # For right and wrong the middle moves towards 0 by the added rows, as with Agresti and Min.
    middle = float(differences.sum()) / (count + 2) if before.dtype == torch.bool else value
    squares = float((differences - middle).square().sum()) + 2 * (spread**2 + middle**2)
    half = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * (squares / (count + 2)) ** 0.5 / (count + 2) ** 0.5
    return Gain(name, float(first.mean()), float(second.mean()), value, middle - half, middle + half)
