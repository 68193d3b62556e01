"""Decisions by held-out rows: which epoch was best, how far rates have fallen, whether training ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from moebius.lab.training.settings import Watch


@dataclass(frozen=True)
class WatchState:
    """The decisions after some epochs.

    Arguments:
        best: the best epoch, from 1; None before there is one.
        falls: how often plateaus have lowered the learning rates that hold from the next epoch on.
        ends: whether training ends here.
    """

    best: int | None = None
    falls: int = 0
    ends: bool = False


def watch_state(values: Sequence[float], watch: Watch) -> WatchState:
    """The decisions for a history of values. A function of it alone: a resumed run decides as an uninterrupted one.

    An epoch is better if its value is strictly better than all before. After `patience` epochs without a better one
    training ends. After `plateau.patience` epochs without a better one that is also above `above` the rates fall, and
    the count begins anew.

    Arguments:
        values: the measure on the held-out rows, one per epoch.
        watch: the rules; without a mode, less is better of "loss" alone.

    Example:
        >>> from moebius.lab.training.settings import Plateau
        >>> watch_state([0.5, 0.7, 0.6, 0.7], Watch(plateau=Plateau(patience=2), patience=3))
        WatchState(best=2, falls=1, ends=False)

    Reference: the rules of study 3; Keras' ReduceLROnPlateau, EarlyStopping and ModelCheckpoint.
    """
    mode = watch.mode or ("min" if watch.measure == "loss" else "max")
    sign = -1.0 if mode == "min" else 1.0
    least = -float("inf") if watch.above is None else sign * watch.above
    best, top, falls, idle, flat = None, -float("inf"), 0, 0, 0
    for epoch, value in enumerate(values, 1):
        idle, flat = idle + 1, flat + 1
        if sign * value > top:
            top, idle = sign * value, 0
            if top > least:
                best, flat = epoch, 0
        if watch.plateau is not None and flat >= watch.plateau.patience:
            falls, flat = falls + 1, 0
    return WatchState(best, falls, watch.patience is not None and idle >= watch.patience)
