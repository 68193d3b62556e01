"""The schedule that changes from one value to another along half a cosine wave."""

import math
from dataclasses import dataclass

from moebius.schedules._ramp import Ramp


@dataclass(frozen=True)
class Cosine(Ramp):
    """A change from one value to another along half a cosine wave: slow at both ends.

    s(t) = end + (start - end) · (1 + cos π·clamp((t - begin) / epochs, 0, 1)) / 2

    Arguments:
        start: value up to epoch `begin`.
        end: value from epoch `begin + epochs` on.
        epochs: length of the change, in epochs, above 0.
        begin: epoch at which the change begins, 0 or later.

    Raises:
        ArgumentError: a value is NaN or infinite, `epochs` is not positive or `begin` is negative.

    Example:
        >>> [round(Cosine(start=1.0, end=0.0, epochs=4)(epoch), 4) for epoch in (0, 1, 2, 4, 5)]
        [1.0, 0.8536, 0.5, 0.0, 0.0]

    Reference: Loshchilov and Hutter 2017, "SGDR", equation 5, with one period.
    """

    def __call__(self, epoch: float | int) -> float:
        """The value at `epoch`."""
        share_of_start = (1 + math.cos(math.pi * self.progress(epoch))) / 2
        return share_of_start * self.start + (1 - share_of_start) * self.end
