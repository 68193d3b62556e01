"""The events of a training that goes on, and the outcome of one that is finished."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from moebius.lab.data.split import Dataset
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.expert_alone import ExpertAlone
from moebius.lab.training.summary import html_summary, text_summary
from moebius.tasks._task import Task

_NOUNS = {"held_out": "held-out", "train": "training"}


@dataclass(frozen=True)
class Event:
    """What a listener receives: `kind` is "resumed", "step", "epoch", "note" or "warning".

    Arguments:
        epoch: the epoch under way, from 1.
        step: finished steps of all epochs; `steps`: how many there are, if training does not end earlier.
        score, loss: of the epoch so far, measured before each update.
        images_per_second: of this session so far.
        test_score, validation_score: at an epoch's end, where there are such rows.
        score_name: what the score is: "accuracy", or that of another task.
        text: of a note or a warning.
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
    validation_score: float | None = None


@dataclass(frozen=True)
class Origin:
    """What `mb.fit` trained with.

    Arguments:
        data: the rows.
        task: what was learned.
        seed: of the training.
        precision: number format of the products.
    """

    data: Dataset
    task: Task
    seed: int
    precision: str


@dataclass(frozen=True, repr=False)
class Trained:
    """A finished run: the model of the reported epoch, and its outputs for the rows of all splits.

    The *final rows* are the test rows; where there are none, the held-out rows, and without these the training rows.

    Arguments:
        model: of the reported epoch.
        epoch: the reported epoch; 0 where there was nothing to train.
        metrics: one entry per epoch.
        evaluations: "train", "validation" if rows are held out, and "test" if there are test rows.
        one_expert: the final rows, each with exactly one expert; None for a single expert, and for a model that is no
            mixture itself.
        alone: each expert by itself on the final rows; empty where `one_expert` is None.
        alone_held_out: each expert by itself on the held-out rows.
        oracle: mean over the final rows of the best expert's score: for classes, the share that at least one expert
            classifies right by itself; None where `alone` is empty.
        remembered: whether the outputs of frozen experts for the training rows were computed once.
        origin: what `mb.fit` trained with; None for a run of a study.
    """

    model: nn.Module
    epoch: int
    metrics: list[dict[str, Any]]
    evaluations: Mapping[str, Evaluation]
    one_expert: Evaluation | None = None
    alone: tuple[ExpertAlone, ...] = ()
    alone_held_out: tuple[ExpertAlone, ...] = ()
    oracle: float | None = None
    remembered: bool = False
    origin: Origin | None = None

    @property
    def reported(self) -> dict[str, Any]:
        """The metrics of the reported epoch."""
        return next(entry for entry in self.metrics if entry["epoch"] == self.epoch)

    @property
    def train(self) -> Evaluation:
        """The training rows."""
        return self.evaluations["train"]

    @property
    def held_out(self) -> Evaluation | None:
        """The rows that were held out and decided which epoch is reported; None where there are none.

        Their score is that of the best of all epochs on these very rows, which flatters it: only `test` is unseen.
        """
        return self.evaluations.get("validation")

    @property
    def validation(self) -> Evaluation | None:
        """The former name of `held_out`.

        Raises:
            AttributeError: always, with the new name.
        """
        raise AttributeError("the held-out rows are fitted.held_out; rows that decided nothing are fitted.test")

    @property
    def test(self) -> Evaluation:
        """The test rows, which decided nothing.

        Raises:
            AttributeError: there are none.
        """
        if "test" not in self.evaluations:
            rows = f"; fitted.{self.final_name} are the {_NOUNS[self.final_name]} rows"
            raise AttributeError(f"no test rows were given: mb.fit(…, test=(x, y)){rows}")
        return self.evaluations["test"]

    @property
    def final_name(self) -> str:
        """Which rows are the final ones: "test", "held_out" or "train"."""
        name = next(name for name in ("test", "validation", "train") if name in self.evaluations)
        return "held_out" if name == "validation" else name

    @property
    def final(self) -> Evaluation:
        """The final rows, of which `one_expert`, `alone` and `oracle` are."""
        return self.evaluations["validation" if self.final_name == "held_out" else self.final_name]

    def frame(self) -> Any:
        """The epochs as a DataFrame: loss, score and metrics of each split, and the terms of the loss."""
        import pandas as pd

        return pd.json_normalize([{**entry, "gates": None} for entry in self.metrics]).drop(columns="gates")

    def plot(self, *names: str) -> Any:
        """The figures of the epochs as a drawing: those of training rows dashed, and a line at the reported epoch.

        Arguments:
            names: of the figures, such as "loss", "accuracy", or a metric; the loss and the score unless given.

        Returns:
            A chart of altair, which a notebook shows; `chart.save("epochs.svg")` writes it (or .png, .html, .json).

        Raises:
            ArgumentError: no epoch has a figure of this name.
        """
        # The import takes a quarter of a second.
        from moebius.lab.training.epoch_chart import draw_epochs

        return draw_epochs(self.metrics, names or ("loss", self.final.score_name), self.epoch)

    def report(self, folder: Path | str, title: str = "") -> Path:
        """Write the page that a recipe's study has, with its figures, tables and files, for this model alone.

        Arguments:
            folder: of the report, created; a report of this method that it holds is written anew.
            title: heading of the page; the class of the model unless given.

        Returns:
            The path of report.html.

        Raises:
            ArgumentError: there are no test rows, whose figures the page shows.
            StudyError: the folder holds something else.
        """
        # Studies are made of trainings. By name, because a training knows nothing of studies when it is imported.
        return importlib.import_module("moebius.lab.study.fitted_report").write_report(self, folder, title)

    def diagnose(self, rows: int = 5000, baseline: bool = False) -> Any:
        """What the gates and experts suffer from, told from the held-out rows, or else the test rows: `mb.diagnose`.

        Arguments:
            rows: how many are looked at.
            baseline: whether the gate's own architecture is trained on the task, to be compared with the mixture.

        Returns:
            The diagnosis, whose `try_remedies()` tries what it suggests.

        Raises:
            ArgumentError: there are neither held-out nor test rows.
        """
        # By name, because a training knows nothing of the doctor when it is imported.
        return importlib.import_module("moebius.lab.doctor.diagnose_fitted").diagnose_fitted(self, rows, baseline)

    def __repr__(self) -> str:
        return text_summary(self._title(), self._figures())

    def _repr_html_(self) -> str:
        return html_summary(self._title(), self._figures())

    def _title(self) -> str:
        return f"Trained {type(self.model).__name__}, epoch {self.epoch} of {self.metrics[-1]['epoch']}"

    def _figures(self) -> list[tuple[str, str]]:
        names = {"validation": "held out"}
        scores = [f"{names.get(name, name)} {rows.score:.3f}" for name, rows in self.evaluations.items()]
        figures = [(self.final.score_name, ", ".join(scores))]
        if self.alone:
            best = max(self.alone, key=lambda expert: expert.score)
            figures.append(("best single expert", f"{best.score:.3f} ({' and '.join(best.paths[:2])})"))
        if self.oracle is not None:
            figures.append(("oracle", f"{self.oracle:.3f}"))
        if self.final.gates:
            figures.append(("experts used per row", self.final.describe_gates()))
        return figures
