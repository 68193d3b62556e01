"""The training loop: epochs of steps, evaluation, checkpoints; killed runs end in the same bits on one machine."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from moebius.core.routing import Router
from moebius.kit.errors import TrainingError
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.batches import Batch, Batches
from moebius.lab.data.nested import map_nested
from moebius.lab.data.split import Dataset
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.checkpoint import restore, save
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.evaluator import Evaluations, Evaluator
from moebius.lab.training.metrics import Metric
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import PartSchedule, build_optimizer, set_modes
from moebius.lab.training.outcome import Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.penalty import kernels
from moebius.lab.training.rows import TrainingRows
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.step_figures import NotFinite, StepFigures
from moebius.tasks import Classification
from moebius.tasks._task import Task

# Seconds between two events, and so between two readings of the figures that steps leave on the device.
EVENT_SECONDS = 0.2


def raise_error(run: int, error: TrainingError) -> None:
    """What `on_failure` does unless told otherwise."""
    raise error


class Loop:
    """Trains S ≥ 1 runs in step, from their last checkpoint if there is one.

    The outcome of a run in company is what it is alone, to rounding. A run whose loss is not finite fails by itself:
    the others go on, with the bits that they would have had in this company.

    Figures of steps are read five times a second. Where one is not finite, the loop goes back to the last checkpoint
    and repeats the steps, reading each before its update: the error then names the step, the term and the expert.

    Arguments:
        members: the runs.
        data: the rows.
        checkpoint: the file that holds the state of all runs.
        device: "cpu" or "cuda".
        on_failure: receives the number of a member that failed, and the error; by default it raises the error.
        store: (frozen part, name of a split) → the file that keeps the part's outputs for other runs, or None.
        task: what is learned.
        metrics: name → function of the outputs and targets of a split.
    """

    def __init__(
        self,
        members: Sequence[Member],
        data: Dataset,
        checkpoint: Path,
        device: str = "cpu",
        on_failure: Callable[[int, TrainingError], None] = raise_error,
        store: Callable[[nn.Module, str], Path | None] = lambda part, split: None,
        task: Task | None = None,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
    ):
        self.members, self.checkpoint, self.on_failure = tuple(members), checkpoint, on_failure
        self.settings = settings = members[0].settings
        self.engine = engine = Engine(members, device)
        first = engine.models[0]
        self.task = (Classification() if task is None else task).for_model(first).for_data(data.train.labels)
        penalised = [] if settings.l2 is None else kernels(first, settings.l2.layers)
        stacked = [engine.stacked(kernel) for kernel in penalised]  # type: ignore[arg-type]
        self.objective = Objective(self.task, [member.settings for member in members], stacked)
        self.annealing = Annealing(engine.call.model, settings.router)
        is_trainable = any(engine.trained.values())
        self.optimizer = build_optimizer(first, settings, engine.trained) if is_trainable else None
        self.part_schedule = None
        if self.optimizer is not None:
            self.part_schedule = PartSchedule(self.optimizer, engine.trained, settings)
        self.leaves = list(engine.parameters.values())
        self.routers = [module for module in engine.call.model.modules() if isinstance(module, Router)]
        data = data.to(engine.device)
        self.rows = TrainingRows(data.train, settings, members[0].seed, is_trainable)
        caches = OutputCaches(engine.call, store)
        self.evaluator = Evaluator(engine, self.task, data, caches, settings.remember, metrics)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        facts = (self.steps_per_epoch, self.task.score_name, data.validation is not None)
        self.records = [RunRecord(member.folder, member.settings, *facts, member.listen) for member in members]
        self.failures: dict[int, TrainingError] = {}
        # The members that have not failed.
        self.active_runs = list(range(len(members)))
        self.figures = StepFigures()
        # Up to this step figures are read before the update: there is no checkpoint to go back to.
        self.careful_until = 1
        self.evaluations: list[Evaluations] = []  # at the end of the last epoch

    @property
    def clock(self) -> RunRecord:
        """The record of a run that has not failed: all of these are at the same step."""
        return self.records[self.active_runs[0]]

    def train(self, reported: Collection[int] | None = None) -> Iterator[tuple[int, Trained]]:
        """Train all members to the end, then yield the outcome of each that did not fail.

        Arguments:
            reported: the members whose outcome is yielded; None for all.
        """
        if self.optimizer is None:
            yield 0, self.evaluator.untrained_outcome(self.records[0])
            return
        note = self.evaluator.describe_caching(self.rows)
        for run in self.active_runs if note else ():
            self.records[run].notify("note", text=note or "")
        if self._restore():
            for run, error in self.failures.items():
                self.on_failure(run, error)
            for run in self.active_runs:
                self.records[run].notify("resumed")
        while self.active_runs and not self.clock.is_finished:
            try:
                self.train_epoch()
                self._end_epoch()
            except NotFinite as found:
                self.careful_until = found.step
                self._restore()
        yield from self._outcomes([run for run in self.active_runs if reported is None or run in reported])

    def _outcomes(self, reported: Sequence[int]) -> Iterator[tuple[int, Trained]]:
        if not reported:
            return
        epochs = {run: self.records[run].restore_reported_epoch(self.engine.models[run]) for run in self.active_runs}
        last_evaluations = self.evaluations if set(epochs.values()) == {self.clock.progress.epoch} else []
        evaluations = self.evaluator.evaluate("training", *(() if last_evaluations else ("test", "validation")))
        uses_cache = bool(self.evaluator.training_cache(self.rows).tables)
        for run in reported:
            of_run = {**(last_evaluations[run] if last_evaluations else {}), **evaluations[run]}
            try:
                self.evaluator.check_finite(run, of_run, epochs[run], self.clock.progress.step)
                metrics = self.records[run].progress.metrics
                trained = self.evaluator.outcome(run, metrics, epochs[run], of_run, uses_cache)
            except TrainingError as error:
                self._fail(run, error)
            else:
                yield run, trained

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch that the progress names."""
        clock, settings, runs = self.clock.progress, self.settings, len(self.members)
        split, first_row = self.rows.of(clock.epoch)
        cache = self.evaluator.training_cache(self.rows)
        seeds = [member.seed for member in self.members]
        batches = Batches(
            split, settings.batch_size, seeds, clock.epoch, clock.batch, channels_last=self.engine.call.channels_last
        )
        begun = last_save = last_event = time.monotonic()
        rows_before = clock.rows
        seconds_before = self.clock.timing.before(clock.epoch + 1) if clock.batch else 0.0
        modes = None
        for batch in batches:
            epoch = clock.epoch + clock.batch / self.steps_per_epoch
            if (new_modes := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.engine.call.model, settings, epoch)
                modes = new_modes
            with cache.serve_rows(batch.rows + first_row):
                self._step(batch, epoch)
            if not self.active_runs:
                return
            for run in self.active_runs:
                self.records[run].count_step(len(batch) // runs)
            clock = self.clock.progress
            now = time.monotonic()
            # The first step is saved at once: whoever saw a run train finds it resumable.
            save_is_due = clock.step == 1 or now - last_save > settings.checkpoint_seconds
            if save_is_due or now - last_event > EVENT_SECONDS:
                self._read_figures()
                rate = runs * (clock.rows - rows_before) / (now - begun)
                if save_is_due:
                    self._save()
                    self._log_time(clock.epoch + 1, seconds_before + (now - begun) / runs, rate)
                    last_save = now
                for run in self.active_runs:  # so that a listener hears of every checkpoint
                    self.records[run].notify("step", rate)
                last_event = now
        self._read_figures()
        seconds = time.monotonic() - begun
        self.rate = runs * (clock.rows - rows_before) / seconds
        # A run's share of the time: the shares of all runs add up to the time that has passed.
        self._log_time(clock.epoch + 1, seconds_before + seconds / runs, self.rate)

    def _step(self, batch: Batch, epoch: float) -> None:
        """One update of every run that has not failed."""
        assert self.optimizer is not None
        assert self.part_schedule is not None
        settings, record, runs = self.settings, self.clock, len(self.members)
        plateau = record.watch.plateau
        self.part_schedule.apply(epoch, record.watch_state.scale, plateau.least if plateau is not None else 0.0)
        if settings.augment and settings.views is None:
            batch = replace(batch, x=apply_augmentations(batch.x, settings.augment))
        recorder, objective = self.engine.recorder, self.objective
        recording = recorder.recording(objective.needs_outputs) if objective.needs_routings else nullcontext({})
        with self.annealing.at(epoch), recording as log:
            output = self.engine.call(batch.x, batch.domains)
        terms = objective(output, batch.labels, self.engine.run_logs(log), epoch)
        scores = self.task.row_scores(map_nested(output, Tensor.detach), batch.labels).view(runs, -1).sum(1)
        step = record.progress.step + 1
        self.figures.add(step, len(batch) // runs, terms, scores)
        if step <= self.careful_until:
            self._check_step(batch, terms)
        for parameter in self.leaves:
            parameter.grad = None
        losses = [terms[run]["loss"] for run in self.active_runs]
        total = losses[0] if len(losses) == 1 else torch.stack(losses).sum() if losses else None
        if total is not None and total.requires_grad:  # not so before any part's start_epoch
            total.backward()
            if settings.clip_norm is not None:
                self.engine.clip_gradients(settings.clip_norm)
            self.optimizer.step()
        # Also where nothing trains yet: a checkpoint holds no counts.
        with self.annealing.at(epoch):
            for router in self.routers:
                router.step()

    def _check_step(self, batch: Batch, terms: Sequence[dict[str, Tensor]]) -> None:
        """Read the figures of a step before its update: runs of which one is not finite fail."""
        (figures,) = self.figures.take()
        for run in self.active_runs:
            record = self.records[run]
            if figures.are_finite(run):
                record.count_figures(run, figures)
                continue
            rows = batch.of_run(run, len(self.members))
            parts = {name: term for name, term in terms[run].items() if name != "loss"}
            moment = (record.progress.epoch + 1, figures.step)
            self._fail(run, nonfinite_error(self.engine.models[run], rows, parts, *moment))

    def _read_figures(self) -> None:
        """Add the figures of the steps since the last reading to the progress.

        Raises:
            NotFinite: one of a run that has not failed is not finite.
        """
        for figures in self.figures.take():
            for run in self.active_runs:
                if not figures.are_finite(run):
                    raise NotFinite(figures.step)
                self.records[run].count_figures(run, figures)

    def _end_epoch(self) -> None:
        if not self.active_runs:
            return
        self.evaluations = self.evaluator.evaluate("test", "validation")
        for run in self.active_runs:
            record, evaluations = self.records[run], self.evaluations[run]
            epoch = record.progress.epoch + 1
            try:
                self.evaluator.check_finite(run, evaluations, epoch, record.progress.step)
            except TrainingError as error:
                self._fail(run, error)
            else:
                entry = self.evaluator.epoch_entry(epoch, record.training_figures(), evaluations)
                record.close_epoch(entry, self.engine.models[run], self.rate)
        self._save()

    def _fail(self, run: int, error: TrainingError) -> None:
        self.failures[run] = error
        self.active_runs = [number for number in self.active_runs if number != run]
        self.on_failure(run, error)

    def _log_time(self, epoch: int, seconds: float, rate: float) -> None:
        for run in self.active_runs:
            self.records[run].timing.log(epoch, seconds, rate)

    def _save(self) -> None:
        assert self.optimizer is not None
        progress = [record.progress for record in self.records]
        save(self.checkpoint, self.engine, self.optimizer, progress, self.failures)

    def _restore(self) -> bool:
        """Go to the state that the checkpoint holds; False where there is none."""
        assert self.optimizer is not None
        self.figures.take()
        state = restore(self.checkpoint, self.engine, self.optimizer)
        if state is None:
            return False
        progress, self.failures = state
        self.active_runs = [run for run in range(len(self.members)) if run not in self.failures]
        for record, of_run in zip(self.records, progress, strict=True):
            record.resume(of_run)
        return True
