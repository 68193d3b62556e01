"""The schedule with a constant value."""

import math
from dataclasses import dataclass

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class Constant:
    """The same value at every epoch: s(t) = value.

    Arguments:
        value: any finite number.

    Raises:
        ArgumentError: `value` is NaN or infinite.

    Example:
        >>> Constant(0.1)(7.5)
        0.1

    Reference: ours.
    """

    value: float | int

    def __post_init__(self):
        if not math.isfinite(self.value):
            raise ArgumentError("value", "needs a finite number", self.value, "value: 1")

    def __call__(self, epoch: float | int) -> float:
        """The value at `epoch`."""
        return float(self.value)
