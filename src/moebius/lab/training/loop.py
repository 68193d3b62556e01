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
from moebius.lab.training.call_model import call_model, gives_log_probabilities
from moebius.lab.training.checkpoint import Progress, restore, save
from moebius.lab.training.evaluator import Evaluator
from moebius.lab.training.mixture_parts import trainable_parts
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import PartSchedule, build_optimizer, set_modes
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.penalty import kernels, l2
from moebius.lab.training.rows import TrainingRows
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Settings


class Trainer:
    """Trains one model in one folder, from its last checkpoint if there is one.

    Arguments:
        build: makes the untrained model, a mixture or a network with mixtures inside; called once, after seeding.
        data: the rows.
        settings: how to train; `precision` is "fp32" or "bf16" here.
        seed: of the initialisation, the order of rows and everything random in the model.
        folder: where `state/`, `metrics.jsonl` and `timing.jsonl` go.
        device: "cpu" or "cuda".
        listen: receives the events.
        store: (frozen part, name of a split) → the file that keeps the part's outputs for other runs, or None.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
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
        self.objective = Objective(gives_log_probabilities(model), settings.losses, settings.cross_entropy)
        self.annealing = Annealing(model, settings.router)
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if self.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = model = model.to(self.accelerator.device)
        trained = trainable_parts(model)
        self.is_trainable = any(trained.values())
        # The optimizer stays unwrapped: Accelerate's wrapper looks for optional packages at every step, which takes
        # 0.3 ms of a step of study 1 under a profiler, and bf16 needs no scaling of gradients.
        self.optimizer = build_optimizer(model, settings, trained) if self.is_trainable else None
        self.part_schedule = None if self.optimizer is None else PartSchedule(self.optimizer, trained, settings)
        self.parameters = list(model.parameters())
        self.kernels = [] if settings.l2 is None else kernels(model, settings.l2.layers)
        self.recorder = Recorder(model)
        self.wrapped_model = self.accelerator.prepare_model(model)
        self.settings, self.seed, self.listen = settings, seed, listen
        self.rows = TrainingRows(data.train.to(self.accelerator.device), settings, seed, self.is_trainable)
        caches = OutputCaches(model, store, lambda: self.accelerator.autocast(), self.channels_last)
        self.evaluator = Evaluator(
            self.wrapped_model, model, self.objective, data, self.accelerator, caches, settings.remember
        )
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.checkpoint_path = folder / "state" / "checkpoint.safetensors"
        has_validation = data.validation is not None
        self.run_record = RunRecord(
            folder, settings, self.steps_per_epoch, has_validation, lambda event: self.listen(event)
        )

    @property
    def progress(self) -> Progress:
        """The run's progress."""
        return self.run_record.progress

    def train(self) -> Trained:
        """Train to the end, write checkpoints on the way, and evaluate the reported epoch's model."""
        if self.optimizer is None:
            return self._evaluate_untrained()
        note = self.evaluator.describe_caching(self.rows)
        if note:
            self.run_record.notify("note", text=note)
        progress = restore(self.checkpoint_path, self.model, self.optimizer)
        if progress is not None:
            self.run_record.resume(progress)
        while not self.run_record.is_finished:
            self.train_epoch()
            self._end_epoch()
        epoch = self.run_record.restore_reported_epoch(self.model)
        return self.evaluator.build_outcome(self.progress.metrics, epoch, self.evaluator.uses_cache(self.rows))

    def _evaluate_untrained(self) -> Trained:
        """The outcome of a model that has no parameters to train."""
        self.progress.metrics.append(self.evaluator.epoch_entry(0, self.evaluator.summarise("training")))
        self.run_record.write_metrics()
        return self.evaluator.build_outcome(self.progress.metrics, 0)

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch that the progress names."""
        progress, settings = self.progress, self.settings
        split, first_row = self.rows.of(progress.epoch)
        cache = self.evaluator.training_cache(self.rows)
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
        begun = last_save = last_event = time.monotonic()
        rows_before = progress.rows
        seconds_before = self.run_record.timing.before(progress.epoch + 1) if progress.batch else 0.0
        modes = None
        for batch in batches:
            epoch = progress.epoch + progress.batch / self.steps_per_epoch
            if (new_modes := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.wrapped_model, settings, epoch)
                modes = new_modes
            with cache.serve_rows(batch.rows + first_row):
                terms, correct = self._step(batch, epoch)
            rows = len(batch.labels)
            sums = [total + rows * term for total, term in zip(sums, terms, strict=True)]
            self.run_record.count_step(rows, correct)
            now = time.monotonic()
            # The first step is saved at once: whoever saw a run train finds it resumable.
            save_is_due = progress.step == 1 or now - last_save > settings.checkpoint_seconds
            if save_is_due or now - last_event > 0.2:
                progress.terms = dict(zip(names, sums, strict=True))
                rate = (progress.rows - rows_before) / (now - begun)
                if save_is_due:
                    self._save()
                    self.run_record.timing.log(progress.epoch + 1, seconds_before + now - begun, rate)
                    last_save = now
                self.run_record.notify("step", rate)  # so that a listener hears of every checkpoint
                last_event = now
        progress.terms = dict(zip(names, sums, strict=True))
        seconds = time.monotonic() - begun
        self.rate = (progress.rows - rows_before) / seconds
        self.run_record.timing.log(progress.epoch + 1, seconds_before + seconds, self.rate)

    def _step(self, batch: Batch, epoch: float) -> tuple[list[float], int]:
        """One update; returns the total and the objective's terms, and how many rows were right before it."""
        progress, settings = self.progress, self.settings
        assert self.optimizer is not None
        assert self.part_schedule is not None
        plateau = self.run_record.watch.plateau
        least = plateau.least if plateau is not None else 0.0
        self.part_schedule.apply(epoch, self.run_record.watch_state.scale, least)
        if settings.augment and settings.views is None:
            batch = replace(batch, x=apply_augmentations(batch.x, settings.augment))
        with self.annealing.at(epoch), self.recorder.recording(self.objective.needs_outputs) as log:
            output = call_model(self.wrapped_model, batch.x, batch.domains)
        total, terms = self.objective(output, batch.labels, log, epoch)
        if settings.l2 is not None and self.kernels:
            penalty = l2(self.kernels)
            total, terms = total + settings.l2.weight * penalty, {**terms, "l2": penalty.detach()}
        values = [total.item(), *(value.item() for value in terms.values())]
        if not all(map(math.isfinite, values)):
            raise nonfinite_error(self.model, batch, terms, progress.epoch + 1, progress.step + 1)
        for parameter in self.parameters:
            parameter.grad = None
        if total.requires_grad:  # not so before any part's start_epoch
            total.backward()
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm)
            self.optimizer.step()
        # Also where nothing trains yet: a checkpoint holds no counts.
        with self.annealing.at(epoch):
            step_routers(self.model)
        correct = (output.detach().argmax(-1) == batch.labels).sum()
        return values, int(correct)

    def _end_epoch(self) -> None:
        figures = self.run_record.training_figures()
        entry = self.evaluator.epoch_entry(self.progress.epoch + 1, figures, self.progress.step)
        self.run_record.close_epoch(entry, self.model, self.rate)
        self._save()

    def _save(self) -> None:
        assert self.optimizer is not None
        save(self.checkpoint_path, self.model, self.optimizer, self.progress)
