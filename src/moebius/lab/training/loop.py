"""The training loop: epochs of steps, evaluation, checkpoints; a killed run ends in the same bits on one machine."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from moebius.core.recording import Recorder
from moebius.core.routing import step_routers
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.batches import Batch, Batches
from moebius.lab.data.split import Dataset
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.checkpoint import Progress, restore, save
from moebius.lab.training.evaluator import Evaluator
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import build_optimizer, parts, prepare_epoch, set_modes
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.penalty import kernels, l2
from moebius.lab.training.rows import TrainingRows
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture


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
        store: where what a frozen part says of the split of this name is kept, for other runs to share.
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
        store: Callable[[nn.Module, str], Path | None] = lambda part, split: None,
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
        self.trainable = any(parts(model).values())
        # The optimizer stays bare: Accelerate's wrapper looks for optional packages at every step, which takes
        # 0.3 ms of a step of study 1 under a profiler, and bf16 needs no scaling of gradients.
        self.optimizer = build_optimizer(model, settings) if self.trainable else None
        self.parameters = list(model.parameters())
        self.kernels = [] if settings.l2 is None else kernels(model, settings.l2.layers)
        self.recorder = Recorder(model)
        self.model = self.accelerator.prepare_model(model)
        self.settings, self.seed, self.listen = settings, seed, listen
        self.rows = TrainingRows(data.train.to(self.accelerator.device), settings, seed, self.trainable)
        remembering = OutputCaches(model, store, lambda: self.accelerator.autocast(), self.channels_last)
        self.examiner = Evaluator(
            self.model, model, self.objective, data, self.accelerator, remembering, settings.remember
        )
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.checkpoint_path = folder / "state" / "checkpoint.safetensors"
        held_out = data.validation is not None
        self.account = RunRecord(folder, settings, self.steps_per_epoch, held_out, lambda event: self.listen(event))

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.account.progress

    def train(self) -> Trained:
        """Train to the end, write the state on the way, and evaluate the reported epoch's model."""
        if self.optimizer is None:
            return self._untrained()
        said = self.examiner.what_is_remembered(self.rows)
        if said:
            self.account.tell("note", text=said)
        restored = restore(self.checkpoint_path, self.bare, self.optimizer)
        if restored is not None:
            self.account.take_up(restored)
        while not self.account.over:
            self.train_epoch()
            self._end_epoch()
        reported = self.account.report(self.bare)
        return self.examiner.outcome(self.progress.metrics, reported, self.examiner.remembers(self.rows))

    def _untrained(self) -> Trained:
        """The outcome of a model without anything to train."""
        self.progress.metrics.append(self.examiner.entry(0, self.examiner.look("training")))
        self.account.write_metrics()
        return self.examiner.outcome(self.progress.metrics, 0)

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch where it stands."""
        progress, settings = self.progress, self.settings
        split, first_row = self.rows.of(progress.epoch)
        memory = self.examiner.memory_of(self.rows)
        batches = Batches(
            split,
            settings.batch_size,
            self.seed,
            progress.epoch,
            start=progress.batch,
            channels_last=self.channels_last,
        )
        names = ["loss", "cross_entropy", *(loss.name for loss in self.objective.losses), *["l2"] * bool(self.kernels)]
        sums = [progress.terms.get(name, 0.0) for name in names]
        begun = saved = told = time.monotonic()
        first = progress.rows
        before = self.account.timing.before(progress.epoch + 1) if progress.batch else 0.0
        modes = None
        for batch in batches:
            epoch = progress.epoch + progress.batch / self.steps_per_epoch
            if (now_train := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.model, settings, epoch)
                modes = now_train
            with memory.serve_rows(batch.rows + first_row):
                terms, right = self._step(batch, epoch)
            rows = len(batch.labels)
            sums = [total + rows * term for total, term in zip(sums, terms, strict=True)]
            self.account.count(rows, right)
            now = time.monotonic()
            # The first step is saved at once: whoever saw a run train finds it resumable.
            due = progress.step == 1 or now - saved > settings.checkpoint_seconds
            if due or now - told > 0.2:
                progress.terms = dict(zip(names, sums, strict=True))
                rate = (progress.rows - first) / (now - begun)
                if due:
                    self._save()
                    self.account.timing.log(progress.epoch + 1, before + now - begun, rate)
                    saved = now
                self.account.tell("step", rate)  # so that a listener hears of every checkpoint
                told = now
        progress.terms = dict(zip(names, sums, strict=True))
        seconds = time.monotonic() - begun
        self.rate = (progress.rows - first) / seconds
        self.account.timing.log(progress.epoch + 1, before + seconds, self.rate)

    def _step(self, batch: Batch, epoch: float) -> tuple[list[float], int]:
        """One update; the total and the objective's terms, and how many rows were right before it."""
        progress, settings = self.progress, self.settings
        assert self.optimizer is not None
        plateau = self.account.watch.plateau
        least = plateau.least if plateau is not None else 0.0
        prepare_epoch(self.optimizer, settings, epoch, self.account.verdict.scale, least)
        if settings.augment and settings.views is None:
            batch = replace(batch, x=apply_augmentations(batch.x, settings.augment))
        with self.annealing.at(epoch), self.recorder.recording(self.objective.needs_outputs) as log:
            output = self.model(batch.x, {"domain": batch.domains})
        total, terms = self.objective(output, batch.labels, log, epoch)
        if settings.l2 is not None and self.kernels:
            penalty = l2(self.kernels)
            total, terms = total + settings.l2.weight * penalty, {**terms, "l2": penalty.detach()}
        values = [total.item(), *(value.item() for value in terms.values())]
        if not all(map(math.isfinite, values)):
            raise nonfinite_error(self.bare, batch, terms, progress.epoch + 1, progress.step + 1)
        for parameter in self.parameters:
            parameter.grad = None
        if total.requires_grad:  # not so before any part's start_epoch
            total.backward()
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm)
            self.optimizer.step()
        # Also where nothing trains yet: a checkpoint holds no counts.
        with self.annealing.at(epoch):
            step_routers(self.bare)
        right = (output.detach().argmax(-1) == batch.labels).sum()
        return values, int(right)

    def _end_epoch(self) -> None:
        entry = self.examiner.entry(self.progress.epoch + 1, self.account.trained(), self.progress.step)
        self.account.close_epoch(entry, self.bare, self.rate)
        self._save()

    def _save(self) -> None:
        assert self.optimizer is not None
        save(self.checkpoint_path, self.bare, self.optimizer, self.progress)
