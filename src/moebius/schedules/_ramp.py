"""What the schedules that go from one value to another have in common."""

import math
from dataclasses import dataclass

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` within `epochs` epochs, beginning at epoch `begin`; flat before and after."""

    start: float | int
    end: float | int
    epochs: float | int
    begin: float | int = 0

    def __post_init__(self):
        for name in ("start", "end", "epochs", "begin"):
            if not math.isfinite(getattr(self, name)):
                raise ArgumentError(name, "needs a finite number", getattr(self, name))
        if self.epochs <= 0:
            raise ArgumentError("epochs", "needs a positive number of epochs", self.epochs, "epochs: 1")
        if self.begin < 0:
            raise ArgumentError("begin", "needs an epoch from 0 on", self.begin, "begin: 0")

    def progress(self, epoch: float | int) -> float:
        """The share of the way that lies behind at `epoch`, from 0 to 1."""
        return min(max((epoch - self.begin) / self.epochs, 0.0), 1.0)
