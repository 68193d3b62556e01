"""The schedule that changes by the same amount in every epoch."""

from dataclasses import dataclass

from moebius.schedules._ramp import Ramp


@dataclass(frozen=True)
class Linear(Ramp):
    """A linear change from one value to another.

    s(t) = start + (end - start) · clamp((t - begin) / epochs, 0, 1)

    Arguments:
        start: value up to epoch `begin`.
        end: value from epoch `begin + epochs` on.
        epochs: length of the change, in epochs, above 0; fractions are allowed (0.5: half an epoch of warm-up).
        begin: epoch at which the change begins, 0 or later.

    Raises:
        ArgumentError: a value is NaN or infinite, `epochs` is not positive or `begin` is negative.

    Example:
        >>> warm_up = Linear(start=0.0, end=0.1, epochs=2)
        >>> [warm_up(epoch) for epoch in (0, 1, 2, 3)]
        [0.0, 0.05, 0.1, 0.1]

    Reference: Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2 (warm-up); the general form is ours.
    """

    def __call__(self, epoch: float | int) -> float:
        """The value at `epoch`."""
        progress = self.progress(epoch)
        # As a weighted mean of both ends, so that each end is reached exactly, without rounding error.
        return (1 - progress) * self.start + progress * self.end
