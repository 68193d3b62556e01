"""The functions of a user that training calls after epochs and steps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from moebius.kit.errors import ArgumentError


@dataclass(frozen=True, repr=False)
class Moment:
    """What a callback receives.

    Arguments:
        model: as it is now; it may be called, and its mode may change.
        epoch: the epoch that is finished or under way, from 1.
        step: finished steps of all epochs.
        epochs, steps: how many there are, if training does not end earlier.
        metrics: the figures by name. After an epoch, those of its splits: `train/loss`, `train/accuracy`,
            `validation/loss`, `validation/accuracy`, `test/…` where test rows are given, and `validation/f1` for a
            metric "f1"; terms of the training loss are `train/terms/…`. After a step, `train/…` of its rows. Those of
            training rows are measured before each update.
        learning_rates: by parameter group: "all", or "gate" and "experts"; by number for an optimizer object.

    Example:
        >>> Moment(nn.Identity(), 2, 20, 5, 50, {"train/loss": 0.25}, {"all": 1e-3})
        Moment(epoch 2 of 5, step 20 of 50: train/loss 0.25)
    """

    model: nn.Module
    epoch: int
    step: int
    epochs: int
    steps: int
    metrics: Mapping[str, float]
    learning_rates: Mapping[str, float]

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Moment(epoch {self.epoch} of {self.epochs}, step {self.step} of {self.steps}: {metrics})"


# A function of a moment; one that returns True ends the training.
Callback = Callable[[Moment], Any]
CallbackLike = Callback | Sequence[Callback] | None


def as_callbacks(name: str, value: Any) -> tuple[Callback, ...]:
    """One callback or several as a tuple.

    Raises:
        ArgumentError: one is no function.
    """
    callbacks = () if value is None else (value,) if callable(value) else tuple(value)
    for callback in callbacks:
        if not callable(callback):
            rule = "needs a function of a moment, or several"
            raise ArgumentError(name, rule, callback, f"{name}=lambda moment: print(moment)")
    return callbacks


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of a training.

    What a callback draws of torch's random numbers does not change the training. An exception passes through; the
    checkpoint of an epoch is written before its callbacks run.

    Arguments:
        on_epoch: called after every epoch.
        on_step: called for every step, in order, when the figures of steps are read.
        around: the context in which they run.
    """

    on_epoch: Sequence[Callback] = ()
    on_step: Sequence[Callback] = ()
    around: Callable[[], AbstractContextManager[Any]] = nullcontext

    def call(self, moments: Sequence[Moment], callbacks: Sequence[Callback], device: torch.device) -> bool:
        """Call every callback for every moment; whether one of them ends the training."""
        if not callbacks or not moments:
            return False
        with self.around(), _kept_random_state(device):
            # All of them are called, also after one that ends the training.
            answers = [callback(moment) for moment in moments for callback in callbacks]
        return any(answer is True for answer in answers)


@contextmanager
def _kept_random_state(device: torch.device) -> Iterator[None]:
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    with torch.random.fork_rng([index] if device.type == "cuda" else []):
        yield


def flat_metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an epoch's entry under one name each, without those by domain and by gate.

    Example:
        >>> flat_metrics({"epoch": 1, "train": {"loss": 0.5, "terms": {"z_loss": 2.0}}, "validation": {
        ...     "accuracy": 0.75, "loss": 0.25, "accuracy_by_domain": {"all": 0.75}, "metrics": {"f1": 0.5}}})
        {'train/loss': 0.5, 'train/terms/z_loss': 2.0, 'validation/accuracy': 0.75, 'validation/loss': 0.25, \
'validation/f1': 0.5}
    """
    metrics: dict[str, float] = {}
    for split in ("train", "validation", "test"):
        for name, value in entry.get(split, {}).items():
            if not isinstance(value, Mapping):
                metrics[f"{split}/{name}"] = value
            elif name in ("metrics", "terms"):
                prefix = split if name == "metrics" else f"{split}/terms"
                metrics |= {f"{prefix}/{key}": figure for key, figure in value.items()}
    return metrics
