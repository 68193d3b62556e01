"""The schedule that multiplies its value by a factor at regular intervals."""

import math
from dataclasses import dataclass

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class Step:
    """The value times a factor after every interval: s(t) = start · factor^⌊t / every⌋.

    Arguments:
        start: value in the first interval.
        factor: quotient of the values of successive intervals, above 0 (0.5 halves the value).
        every: length of an interval in epochs, above 0.

    Raises:
        ArgumentError: a value is NaN or infinite, or `factor` or `every` is not positive.

    Example:
        >>> halve = Step(start=1.0, factor=0.5, every=2)
        >>> [halve(epoch) for epoch in (0, 1.99, 2, 5)]
        [1.0, 1.0, 0.5, 0.25]

    Reference: He et al. 2016, "Deep Residual Learning", section 3.4, which divides the rate by 10 in steps; that all
    intervals are equally long is ours.
    """

    start: float | int
    factor: float | int
    every: float | int

    def __post_init__(self):
        for name in ("start", "factor", "every"):
            if not math.isfinite(getattr(self, name)):
                raise ArgumentError(name, "needs a finite number", getattr(self, name), f"{name}: 1")
        if self.factor <= 0:
            raise ArgumentError("factor", "needs a number above 0", self.factor, "factor: 0.5")
        if self.every <= 0:
            raise ArgumentError("every", "needs a positive number of epochs", self.every, "every: 1")

    def __call__(self, epoch: float | int) -> float:
        """The value at `epoch`."""
        # 0.3 / 0.1 is 2.9999999999999996: without the tolerance a change would come one step late.
        changes = math.floor(epoch / self.every + 1e-9)
        return float(self.start * self.factor**changes)
