"""What a training tells while it goes on, and what it leaves when it is done."""

import math
from dataclasses import dataclass
from typing import Any

from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.expert_alone import ExpertAlone
from moebius.layers.mixture import Mixture


@dataclass(frozen=True)
class Event:
    """What a listener hears: `kind` is "resumed", "step", "epoch" or "note".

    Arguments:
        epoch: the epoch under way, from 1.
        step: finished steps of all epochs; `steps` of how many, if it is not ended earlier.
        accuracy, loss: of the epoch so far, measured before each update.
        images_per_second: of this session so far.
        test_accuracy: at an epoch's end.
        text: of a note.
    """

    kind: str
    epoch: int
    step: int
    steps: int
    accuracy: float = math.nan
    loss: float = math.nan
    images_per_second: float = math.nan
    test_accuracy: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Trained:
    """A finished run: the model of the reported epoch and what it does with the rows of both splits.

    Arguments:
        model: of the reported epoch.
        epoch: which; 0 where there was nothing to train.
        metrics: one entry per epoch.
        train, test: the rows of both splits.
        validation: the held-out rows, if there are any.
        one_expert: the test rows, each with exactly one expert; None for a single expert.
        alone: what each expert says by itself of the test rows; empty for a single expert.
        alone_held_out: the same of the held-out rows.
        oracle: share of test rows that at least one expert classifies right by itself; None for a single expert.
        remembered: whether what frozen experts say of the training rows was computed once.
    """

    model: Mixture
    epoch: int
    metrics: list[dict[str, Any]]
    train: Evaluation
    test: Evaluation
    validation: Evaluation | None = None
    one_expert: Evaluation | None = None
    alone: tuple[ExpertAlone, ...] = ()
    alone_held_out: tuple[ExpertAlone, ...] = ()
    oracle: float | None = None
    remembered: bool = False

    @property
    def reported(self) -> dict[str, Any]:
        """The metrics of the reported epoch."""
        return next(entry for entry in self.metrics if entry["epoch"] == self.epoch)
