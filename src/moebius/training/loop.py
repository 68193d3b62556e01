"""The training loop: epochs of steps, evaluation, checkpoints; a run that was killed goes on with the same bits."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from moebius.data.batches import Batch, Batches, in_order
from moebius.data.split import Dataset, Split
from moebius.files import write_text
from moebius.mixture import Mixture
from moebius.recording import Recorder
from moebius.training.annealing import Annealing
from moebius.training.checkpoint import Progress, restore, restore_weights, save, save_weights
from moebius.training.evaluation import ROWS_AT_ONCE, Evaluation, evaluate
from moebius.training.nonfinite import explain
from moebius.training.objective import Objective
from moebius.training.one_expert import cut_to_one_expert
from moebius.training.optimizer import build_optimizer, prepare_epoch
from moebius.training.settings import Settings


@dataclass(frozen=True)
class Event:
    """What a listener hears: `kind` is "resumed", "step" or "epoch".

    Arguments:
        epoch: the epoch under way, from 1.
        step: finished steps of all epochs; `steps` of how many.
        accuracy, loss: of the epoch so far, measured before each update.
        images_per_second: of this session so far.
        test_accuracy: at an epoch's end.
    """

    kind: str
    epoch: int
    step: int
    steps: int
    accuracy: float = math.nan
    loss: float = math.nan
    images_per_second: float = math.nan
    test_accuracy: float | None = None


@dataclass(frozen=True)
class Trained:
    """A finished run: the model of the reported epoch and what it does with the rows of both splits.

    Arguments:
        model: of the reported epoch.
        epoch: which.
        metrics: one entry per epoch.
        train, test: the rows of both splits.
        one_expert: the test rows, each with exactly one expert; None for a single expert.
    """

    model: Mixture
    epoch: int
    metrics: list[dict[str, Any]]
    train: Evaluation
    test: Evaluation
    one_expert: Evaluation | None = None


class Trainer:
    """Trains one mixture in one folder, from its last checkpoint if there is one.

    Arguments:
        build: makes the untrained mixture; called once, after seeding.
        data: the rows.
        settings: how to train; `precision` is "fp32" or "bf16" here.
        seed: of the initialisation, the order of rows and everything random in the model.
        folder: where `state/`, `metrics.jsonl` and `timing.jsonl` go.
        device: "cpu" or "cuda".
        listen: hears of progress.
    """

    def __init__(
        self,
        build: Callable[[], Mixture],
        data: Dataset,
        settings: Settings,
        seed: int,
        folder: Path,
        device: str = "cpu",
        listen: Callable[[Event], None] = lambda event: None,
    ):
        # Accelerate keeps one state per process; runs with unlike precision may follow each other in this one.
        AcceleratorState._reset_state(reset_partial_state=True)
        mixed = "bf16" if settings.precision == "bf16" else "no"
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed)
        torch.manual_seed(seed)
        model = build()
        logs = getattr(model.combine, "gives_log_probabilities", False)
        self.objective = Objective(logs, settings.losses, settings.cross_entropy)
        self.annealing = Annealing(model, settings.router)
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = model.to(self.accelerator.device)
        self.bare = model
        # The optimizer stays bare: Accelerate's wrapper looks for optional packages at every step, which takes
        # 0.3 ms of a step of study 1 under a profiler, and bf16 needs no scaling of gradients.
        self.optimizer = build_optimizer(model, settings)
        self.parameters = list(model.parameters())
        self.recorder = Recorder(model)
        self.model = self.accelerator.prepare_model(model)
        self.data, self.settings, self.seed, self.folder, self.listen = data, settings, seed, folder, listen
        self.train_split = data.train.to(self.accelerator.device)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.checkpoint_path = folder / "state" / "checkpoint.safetensors"
        self.best_path = folder / "state" / "best.safetensors"
        self.progress = Progress()

    def train(self) -> Trained:
        """Train to the end, write the state on the way, and evaluate the reported epoch's model."""
        restored = restore(self.checkpoint_path, self.bare, self.optimizer)
        if restored is not None:
            self.progress = restored
            self._tell("resumed")
        for _ in range(self.progress.epoch, self.settings.epochs):
            self.train_epoch()
            self._end_epoch()
        reported = self.settings.epochs
        if self.progress.best is not None:
            reported = self.progress.best
            restore_weights(self.best_path, self.bare)
        train, test = self._evaluate(self.data.train, "training"), self._evaluate(self.data.test, "test")
        one_expert = None
        if len(self.bare.experts) > 1:
            with cut_to_one_expert(self.bare):
                one_expert = evaluate(
                    self.model, self.objective, self.data.test.to(self.accelerator.device), self.channels_last
                )
        return Trained(self.bare, reported, self.progress.metrics, train, test, one_expert)

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch where it stands."""
        progress, settings = self.progress, self.settings
        batches = Batches(
            self.train_split,
            settings.batch_size,
            self.seed,
            progress.epoch,
            start=progress.batch,
            channels_last=self.channels_last,
        )
        names = ["loss", "cross_entropy", *(loss.name for loss in self.objective.losses)]
        sums = [progress.terms.get(name, 0.0) for name in names]
        begun = saved = told = time.monotonic()
        first = progress.rows
        before = self._seconds_before()
        self.model.train()
        for batch in batches:
            terms, right = self._step(batch)
            rows = len(batch.labels)
            sums = [total + rows * term for total, term in zip(sums, terms, strict=True)]
            progress.correct += right
            progress.batch += 1
            progress.step += 1
            progress.rows += rows
            now = time.monotonic()
            # The first step is saved at once: whoever saw a run train finds it resumable.
            due = progress.step == 1 or now - saved > settings.checkpoint_seconds
            if due or now - told > 0.2:
                progress.terms = dict(zip(names, sums, strict=True))
                rate = (progress.rows - first) / (now - begun)
                if due:
                    self._save()
                    self._log_time(progress.epoch + 1, before + now - begun, rate)
                    saved = now
                self._tell("step", rate)  # so that a listener hears of every checkpoint
                told = now
        progress.terms = dict(zip(names, sums, strict=True))
        seconds = time.monotonic() - begun
        self.rate = (progress.rows - first) / seconds
        self._log_time(progress.epoch + 1, before + seconds, self.rate)

    def _step(self, batch: Batch) -> tuple[list[float], int]:
        """One update; the total and the objective's terms, and how many rows were right before it."""
        progress = self.progress
        epoch = progress.epoch + progress.batch / self.steps_per_epoch
        prepare_epoch(self.optimizer, self.settings, epoch)
        with self.annealing.at(epoch), self.recorder.recording(self.objective.needs_outputs) as log:
            output = self.model(batch.x, {"domain": batch.domains})
        total, terms = self.objective(output, batch.labels, log, epoch)
        values = [total.item(), *(value.item() for value in terms.values())]
        if not all(map(math.isfinite, values)):
            raise explain(self.bare, batch, terms, progress.epoch + 1, progress.step + 1)
        for parameter in self.parameters:
            parameter.grad = None
        if total.requires_grad:  # not so before any part's start_epoch
            total.backward()
            if self.settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            self.optimizer.step()
        right = (output.detach().argmax(-1) == batch.labels).sum()
        return values, int(right)

    def _end_epoch(self) -> None:
        progress, test = self.progress, self._evaluate(self.data.test, "test")
        entry: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train": {
                "accuracy": progress.correct / progress.rows,
                "loss": progress.terms["loss"] / progress.rows,
                "terms": {name: value / progress.rows for name, value in progress.terms.items() if name != "loss"},
            },
            "test": self._summary(test),
            "gates": {path: test.gate_summary(path) for path in test.gates},
        }
        if self.data.validation is not None:
            entry["validation"] = self._summary(self._evaluate(self.data.validation, "validation"))
            if progress.best is None or entry["validation"]["accuracy"] > self._best_accuracy():
                progress.best = progress.epoch + 1
                save_weights(self.best_path, self.bare)
        progress.metrics.append(entry)
        progress.epoch += 1
        self._tell("epoch", self.rate, test.accuracy)
        progress.batch = progress.rows = progress.correct = 0
        progress.terms = {}
        write_text(self.folder / "metrics.jsonl", "".join(f"{json.dumps(one)}\n" for one in progress.metrics))
        self._save()

    def _best_accuracy(self) -> float:
        assert self.progress.best is not None
        return self.progress.metrics[self.progress.best - 1]["validation"]["accuracy"]

    def _evaluate(self, split: Split, name: str) -> Evaluation:
        split = split.to(self.accelerator.device)
        evaluation = evaluate(self.model, self.objective, split, self.channels_last)
        if not math.isfinite(evaluation.loss):
            # The last update of an epoch may be the one that broke the model.
            rows = torch.nonzero(~evaluation.losses.isfinite()).squeeze(1)[:ROWS_AT_ONCE]
            batch = next(in_order(split.take(rows.to(split.labels.device)), ROWS_AT_ONCE))
            terms = {f"{name} cross_entropy": evaluation.losses.sum()}
            raise explain(self.bare, batch, terms, self.progress.epoch + 1, self.progress.step)
        return evaluation

    def _summary(self, evaluation: Evaluation) -> dict[str, Any]:
        by_domain = evaluation.accuracy_by_domain(self.data.groups)
        return {"accuracy": evaluation.accuracy, "loss": evaluation.loss, "accuracy_by_domain": by_domain}

    def _save(self) -> None:
        save(self.checkpoint_path, self.bare, self.optimizer, self.progress)

    def _log_time(self, epoch: int, seconds: float, rate: float) -> None:
        """Times stand in a file of their own: metrics and checkpoints of two equal runs are equal to the bit."""
        entries = [entry for entry in self._times() if entry["epoch"] < epoch]
        entries.append({"epoch": epoch, "seconds": seconds, "images_per_second": rate})
        write_text(self.folder / "timing.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in entries))

    def _times(self) -> list[dict[str, Any]]:
        path = self.folder / "timing.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _seconds_before(self) -> float:
        """What the epoch under way had taken when the run was interrupted."""
        if not self.progress.batch:
            return 0.0
        return sum(entry["seconds"] for entry in self._times() if entry["epoch"] == self.progress.epoch + 1)

    def _tell(self, kind: str, rate: float = math.nan, test_accuracy: float | None = None) -> None:
        progress = self.progress
        rows = max(progress.rows, 1)
        self.listen(
            Event(
                kind,
                epoch=progress.epoch + (kind != "epoch"),
                step=progress.step,
                steps=self.steps_per_epoch * self.settings.epochs,
                accuracy=progress.correct / rows,
                loss=progress.terms.get("loss", math.nan) / rows,
                images_per_second=rate,
                test_accuracy=test_accuracy,
            )
        )
