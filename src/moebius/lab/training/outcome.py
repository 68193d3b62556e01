"""The events of a training that goes on, and the outcome of one that is finished."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.expert_alone import ExpertAlone
from moebius.lab.training.summary import html_summary, text_summary


@dataclass(frozen=True)
class Event:
    """What a listener receives: `kind` is "resumed", "step", "epoch" or "note".

    Arguments:
        epoch: the epoch under way, from 1.
        step: finished steps of all epochs; `steps`: how many there are, if training does not end earlier.
        score, loss: of the epoch so far, measured before each update.
        images_per_second: of this session so far.
        test_score: at an epoch's end.
        score_name: what the score is: "accuracy", or that of another task.
        text: of a note.
    """

    kind: str
    epoch: int
    step: int
    steps: int
    score: float = math.nan
    loss: float = math.nan
    images_per_second: float = math.nan
    test_score: float | None = None
    score_name: str = "accuracy"
    text: str = ""


@dataclass(frozen=True, repr=False)
class Trained:
    """A finished run: the model of the reported epoch, and its outputs for the rows of all splits.

    Arguments:
        model: of the reported epoch.
        epoch: the reported epoch; 0 where there was nothing to train.
        metrics: one entry per epoch.
        train, test: the training rows and the test rows.
        validation: the held-out rows, if there are any.
        one_expert: the test rows, each with exactly one expert; None for a single expert, and for a model that is no
            mixture itself.
        alone: each expert by itself on the test rows; empty where `one_expert` is None.
        alone_held_out: each expert by itself on the held-out rows.
        oracle: mean over test rows of the best expert's score: for classes, the share that at least one expert
            classifies right by itself; None where `alone` is empty.
        remembered: whether the outputs of frozen experts for the training rows were computed once.
    """

    model: nn.Module
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

    def frame(self) -> Any:
        """The epochs as a DataFrame: loss, score and metrics of each split, and the terms of the loss."""
        import pandas as pd

        return pd.json_normalize([{**entry, "gates": None} for entry in self.metrics]).drop(columns="gates")

    def __repr__(self) -> str:
        return text_summary(self._title(), self._figures())

    def _repr_html_(self) -> str:
        return html_summary(self._title(), self._figures())

    def _title(self) -> str:
        return f"Trained {type(self.model).__name__}, epoch {self.epoch} of {self.metrics[-1]['epoch']}"

    def _figures(self) -> list[tuple[str, str]]:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if self.validation is self.test:
            splits = {"train": self.train, "held out": self.test}
        scores = [f"{name} {rows.score:.3f}" for name, rows in splits.items() if rows is not None]
        figures = [(self.test.score_name, ", ".join(scores))]
        if self.alone:
            best = max(self.alone, key=lambda expert: expert.score)
            figures.append(("best single expert", f"{best.score:.3f} ({' and '.join(best.paths[:2])})"))
        if self.oracle is not None:
            figures.append(("oracle", f"{self.oracle:.3f}"))
        if self.test.gates:
            figures.append(("experts used per row", self.test.describe_gates()))
        return figures
