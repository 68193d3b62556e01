"""What one run has done so far: its progress, its best epoch, the files that it writes and the events that it sends."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moebius.core.processes import Company, company
from moebius.kit.files import write_text
from moebius.lab.illnesses._illness import Finding
from moebius.lab.training.callbacks import Callback, Callbacks, Moment, flat_metrics
from moebius.lab.training.checkpoint import Progress, restore_weights, save_weights
from moebius.lab.training.measure import read_measure
from moebius.lab.training.outcome import Event
from moebius.lab.training.processes import Processes
from moebius.lab.training.settings import Settings, Watch
from moebius.lab.training.step_figures import Figures
from moebius.lab.training.timing import Timing
from moebius.lab.training.watch_state import WatchState, watch_state


class RunRecord:
    """The record of one run: its progress, which epoch was best, its files and its events.

    Arguments:
        folder: of the run; `metrics.jsonl`, `timing.jsonl` and the best epoch's weights go there.
        settings: how the run is trained.
        steps_per_epoch: steps over all training rows.
        score_name: of the task's score, in metrics.
        watch: how held-out rows decide which epoch is best; None where there are none.
        listen: receives the events.
        callbacks: of the run's user; the first of several processes calls them.
        processes: that train the run.

    Attributes:
        is_stopped: whether a callback has ended the training.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        steps_per_epoch: int,
        score_name: str,
        watch: Watch | None,
        listen: Callable[[Event], None] = lambda event: None,
        callbacks: Callbacks | None = None,
        processes: Processes | None = None,
    ):
        self.processes = processes or Processes.current()
        self.folder, self.settings, self.steps_per_epoch = folder, settings, steps_per_epoch
        self.score_name, self.has_validation, self.listen = score_name, watch is not None, listen
        self.watch = watch or settings.watch or Watch()
        self.best_path = folder / "state" / "best.safetensors"
        self.timing = Timing(folder)
        self.progress = Progress()
        self.watch_state = WatchState()
        self.callbacks, self.is_stopped = callbacks or Callbacks(), False
        # The steps of which callbacks have not heard, and the last one of which they have.
        self.unheard: list[Moment] = []
        self.last_heard = 0

    def resume(self, progress: Progress) -> None:
        """Go on from a checkpoint's progress."""
        self.progress = progress
        self.watch_state = self._compute_watch_state()

    def count_figures(self, run: int, figures: Figures, model: nn.Module) -> None:
        """Add the figures that a step has for the run of this number; `model` is what callbacks receive."""
        sums = self.progress.terms
        self.progress.score += figures.scores[run]
        self.progress.terms = {
            name: sums.get(name, 0.0) + figures.rows * term for name, term in figures.terms[run].items()
        }
        # A step that is repeated, to find what broke it, is told once.
        if self.callbacks.on_step and figures.step > self.last_heard:
            terms = {name: term for name, term in figures.terms[run].items() if name != "loss"}
            loss, score = figures.terms[run]["loss"], figures.scores[run] / figures.rows
            entry = {"train": {self.score_name: score, "loss": loss, "terms": terms}}
            self.unheard.append(self._moment(model, entry, figures.rates, figures.step))
            self.last_heard = figures.step

    def _moment(
        self, model: nn.Module, entry: Mapping[str, Any], rates: Mapping[str, float], step: int, finished: bool = False
    ) -> Moment:
        epochs, epoch = self.settings.epochs, self.progress.epoch + (not finished)
        return Moment(model, epoch, step, epochs, epochs * self.steps_per_epoch, flat_metrics(entry), rates)

    def call_step_callbacks(self, device: torch.device) -> None:
        """Tell the callbacks of all steps that were counted since the last call."""
        moments, self.unheard = self.unheard, []
        self._call(moments, self.callbacks.on_step, device)

    def call_epoch_callbacks(self, model: nn.Module, rates: Mapping[str, float], device: torch.device) -> None:
        """Tell the callbacks of the epoch that was closed last."""
        progress = self.progress
        moments = [self._moment(model, progress.metrics[-1], rates, progress.step, finished=True)]
        self._call(moments, self.callbacks.on_epoch, device)

    def _call(self, moments: Sequence[Moment], callbacks: Sequence[Callback], device: torch.device) -> None:
        if not callbacks or not moments:
            return
        # A callback may train, or compute a gate loss: the other processes take no part.
        with self.processes.agreed(), company(Company.ALONE):
            if self.processes.is_first and self.callbacks.call(moments, callbacks, device):
                self.is_stopped = True
        self.is_stopped = self.processes.first(self.is_stopped)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is finished, or training ends earlier."""
        return self.progress.epoch >= self.settings.epochs or self.watch_state.ends or self.is_stopped

    def count_step(self, rows: int) -> None:
        """Count a finished step of so many rows."""
        self.progress.batch += 1
        self.progress.step += 1
        self.progress.rows += rows

    def training_figures(self) -> dict[str, Any]:
        """Score, loss and terms of the epoch under way, measured before each update."""
        progress = self.progress
        return {
            self.score_name: progress.score / progress.rows,
            "loss": progress.terms["loss"] / progress.rows,
            "terms": {name: value / progress.rows for name, value in progress.terms.items() if name != "loss"},
        }

    def close_epoch(
        self, entry: dict[str, Any], model: nn.Module, rate: float, findings: Sequence[Finding] = ()
    ) -> None:
        """Record the epoch under way as finished.

        Arguments:
            entry: its metrics.
            model: as the epoch leaves it; its weights are kept or replaced where held-out rows decide so.
            rate: images per second.
            findings: what its gates suffer from.
        """
        progress = self.progress
        progress.metrics.append(entry)
        progress.epoch += 1
        if self.has_validation:
            self.watch_state = self._compute_watch_state()
            progress.best = self.watch_state.best
            if progress.best == progress.epoch:
                save_weights(self.best_path, model)
            elif progress.best is not None and self.watch.restart:
                restore_weights(self.best_path, model)
        scores = {f"{name}_score": entry[name][self.score_name] for name in ("test", "validation") if name in entry}
        self.notify("epoch", rate, **scores)
        self._warn(findings)
        progress.batch = progress.rows = 0
        progress.score, progress.terms = 0, {}
        self.write_metrics()

    def _warn(self, findings: Sequence[Finding]) -> None:
        """Tell of what shows in the gates for the first time."""
        earlier = [before.get("findings", {}) for before in self.progress.metrics[:-1]]
        for finding in findings:
            if not any(finding.code in before.get(finding.gate, "").split() for before in earlier):
                text = f"{finding.code} {finding.kind} ({finding.gate}): {finding.evidence}. Try: {finding.remedy}"
                self.notify("warning", text=f"epoch {self.progress.epoch}: {text}")

    def restore_reported_epoch(self, model: nn.Module) -> int:
        """Put the weights of the reported epoch into the model; returns that epoch."""
        if self.progress.best is None:
            return self.progress.epoch
        restore_weights(self.best_path, model)
        return self.progress.best

    def write_metrics(self) -> None:
        """Write one line per finished epoch."""
        lines = "".join(f"{json.dumps(entry)}\n" for entry in self.progress.metrics)
        write_text(self.folder / "metrics.jsonl", lines)

    def notify(
        self,
        kind: str,
        rate: float = math.nan,
        test_score: float | None = None,
        validation_score: float | None = None,
        text: str = "",
    ) -> None:
        """Send the listener an event with the run's progress."""
        progress = self.progress
        rows = max(progress.rows, 1)
        self.listen(
            Event(
                kind,
                epoch=progress.epoch + (kind != "epoch"),
                step=progress.step,
                steps=self.steps_per_epoch * self.settings.epochs,
                score=progress.score / rows,
                loss=progress.terms.get("loss", math.nan) / rows,
                images_per_second=rate,
                test_score=test_score,
                score_name=self.score_name,
                text=text,
                validation_score=validation_score,
            )
        )

    def _compute_watch_state(self) -> WatchState:
        if not self.has_validation:
            return WatchState()
        values = [read_measure(entry["validation"], self.watch.measure) for entry in self.progress.metrics]
        return watch_state(values, self.watch)
