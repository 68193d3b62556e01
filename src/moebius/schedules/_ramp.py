"""The base of schedules that change from one value to another."""

import math
from dataclasses import dataclass

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class Ramp:
    """A change from `start` to `end` within `epochs` epochs from epoch `begin` on; constant before and after."""

    start: float | int
    end: float | int
    epochs: float | int
    begin: float | int = 0

    def __post_init__(self):
        for name in ("start", "end", "epochs", "begin"):
            if not math.isfinite(getattr(self, name)):
                raise ArgumentError(name, "needs a finite number", getattr(self, name), f"{name}: 1")
        if self.epochs <= 0:
            raise ArgumentError("epochs", "needs a positive number of epochs", self.epochs, "epochs: 1")
        if self.begin < 0:
            raise ArgumentError("begin", "needs an epoch from 0 on", self.begin, "begin: 0")

    def progress(self, epoch: float | int) -> float:
        """The share of the change that is complete at `epoch`, from 0 to 1."""
        return min(max((epoch - self.begin) / self.epochs, 0.0), 1.0)
