"""The training loop: epochs of steps, evaluation, checkpoints; killed runs end in the same bits on one machine."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from torch import Tensor

from moebius.kit.errors import TrainingError
from moebius.lab.data.batches import Batch, Batches
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.checkpoint import path_before, restore, save
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.evaluator import Evaluations, Evaluator
from moebius.lab.training.metrics import Metric
from moebius.lab.training.nonfinite_error import batch_errors
from moebius.lab.training.optimizer import learning_rates, set_modes
from moebius.lab.training.outcome import Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.processes import Processes, peers
from moebius.lab.training.rows import TrainingRows
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Watch
from moebius.lab.training.shared_start import check_statistics, share_start
from moebius.lab.training.start_check import start_check
from moebius.lab.training.step_clock import StepClock
from moebius.lab.training.step_figures import NotFinite
from moebius.lab.training.updater import Updater
from moebius.tasks import Classification
from moebius.tasks._task import Task


def raise_error(run: int, error: TrainingError) -> None:
    """What `on_failure` does unless told otherwise."""
    raise error


class Loop:
    """Trains S ≥ 1 runs in step, from their last checkpoint if there is one.

    The outcome of a run in company is what it is alone, to rounding. A run whose loss is not finite fails by itself:
    the others go on, with the bits that they would have had in this company. Among several processes (`Processes`) each
    has a loop, of the same members in a folder of its own; that of the first is the one that stays.

    Figures of steps are read five times a second. Where one is not finite, the loop goes back to the last checkpoint
    and repeats the steps, reading each before its update: the error then names the step, the term and the expert.

    Arguments:
        members: the runs.
        data: the rows.
        checkpoint: the file that holds the state of all runs.
        device: "cpu" or "cuda".
        on_failure: receives the number of a member that failed, and the error; by default it raises the error.
        caches: of the outputs of frozen parts, for the model that is trained.
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
        caches: Callable[[ModelCall], OutputCaches] = OutputCaches,
        task: Task | None = None,
        metrics: Mapping[str, Metric] = MappingProxyType({}),
    ):
        self.members, self.checkpoint, self.on_failure = tuple(members), checkpoint, on_failure
        self.settings = settings = members[0].settings
        self.engine = engine = Engine(members, device)
        first = engine.models[0]
        self.task = (Classification() if task is None else task).for_model(first).for_data(data.train.labels)
        self.processes = Processes.current()
        hears_steps = any(each.callbacks and each.callbacks.on_step for each in self.members)
        self.updater = Updater(engine, members, self.task, hears_steps, self.processes)
        self.optimizer, self.part_schedule = self.updater.optimizer, self.updater.part_schedule
        self.leaves, self.figures = self.updater.leaves, self.updater.figures
        data = data.to(engine.device)
        self.rows = TrainingRows(data.train, settings, members[0].seed, self.optimizer is not None)
        of_model = (caches(engine.call), settings.remember, metrics, self.processes)
        self.evaluator = Evaluator(engine, self.task, data, *of_model)
        # Of one run, but for the last step of an epoch.
        self.rows_per_step = settings.batch_size * settings.accumulate
        self.steps_per_epoch = math.ceil(len(data.train) / self.rows_per_step)
        watch = self.evaluator.resolve_watch(settings.watch or Watch())
        facts = (self.steps_per_epoch, self.task.score_name, watch)
        self.records = [
            RunRecord(member.folder, member.settings, *facts, member.listen, member.callbacks, self.processes)
            for member in members
        ]
        state = [checkpoint, path_before(checkpoint), *(record.best_path for record in self.records)]
        share_start(self.processes, engine, members, data, self.task, metrics, state)
        self.failures: dict[int, TrainingError] = {}
        # The members that have not failed.
        self.active_runs = list(range(len(members)))
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
        with peers():
            yield from self._train(reported)

    def _train(self, reported: Collection[int] | None) -> Iterator[tuple[int, Trained]]:
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
        evaluations = self.evaluator.evaluate("train", *(() if last_evaluations else ("test", "validation")))
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
        batches = self._batches(split)
        seconds_before = self.clock.timing.before(clock.epoch + 1) if clock.batch else 0.0
        step_clock = StepClock(settings.checkpoint_seconds, self.processes, runs, clock.rows, seconds_before)
        modes = None
        while clock.batch < self.steps_per_epoch and not self.clock.is_stopped:
            epoch = clock.epoch + clock.batch / self.steps_per_epoch
            if (new_modes := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.engine.call.model, settings, epoch)
                check_statistics(self.processes, self.engine.call.model)
                modes = new_modes
            rows = min(self.rows_per_step, len(split) - clock.batch * self.rows_per_step)
            check = self._check_batch if clock.step < self.careful_until else None

            def warn(run: int, text: str) -> None:
                self.records[run].notify("warning", text=text)

            def serve(batch: Batch) -> AbstractContextManager[None]:
                return cache.serve_rows(batch.rows + first_row)

            step_batches = islice(batches, settings.accumulate)
            step_batches = self.processes.shares(step_batches, runs, self.members[0].seed, clock.step)
            starts = clock.step == 0 and self.processes.is_first
            with start_check(self.engine, warn) if starts else nullcontext(), self.processes.sharing():
                self.updater.update(step_batches, rows, epoch, self.clock, self.active_runs, serve, check)
            if not self.active_runs:
                return
            for run in self.active_runs:
                self.records[run].count_step(rows)
            clock = self.clock.progress
            reads, saves = step_clock.due(clock.step)
            if reads:
                self._read_figures()
                seconds, rate = step_clock.measure(clock.rows)
                if saves:
                    self._save()
                    self._log_time(clock.epoch + 1, seconds, rate)
                for run in self.active_runs:  # so that a listener hears of every checkpoint
                    self.records[run].notify("step", rate)
                if self._call_step_callbacks():
                    modes = None  # a callback may have changed them
        self._read_figures()
        self._call_step_callbacks()
        seconds, self.rate = step_clock.measure(clock.rows)
        self._log_time(clock.epoch + 1, seconds, self.rate)

    def _batches(self, split: Split) -> Iterator[Batch]:
        """The batches of the epoch under way that no finished step had."""
        clock, size = self.clock.progress, self.settings.batch_size
        seeds = [member.seed for member in self.members]
        done = min(clock.batch * self.settings.accumulate, math.ceil(len(split) / size))
        layout, augmentations = self.engine.call.channels_last, self.rows.augmentations
        return iter(Batches(split, size, seeds, clock.epoch, done, None, layout, augmentations))

    def _call_step_callbacks(self) -> bool:
        """Tell callbacks of the steps that were read; whether there are any callbacks."""
        for run in self.active_runs:
            self.records[run].call_step_callbacks(self.engine.device)
        return any(self.records[run].callbacks.on_step for run in self.active_runs)

    def _check_batch(self, batch: Batch, terms: Sequence[dict[str, Tensor]]) -> Sequence[int]:
        """Read the terms of a batch before its backward pass: runs of which one is not finite fail.

        Returns:
            The runs that have not failed.
        """
        progress = self.clock.progress
        moment = (progress.epoch + 1, progress.step + 1)
        errors = batch_errors(self.engine.models, batch, terms, self.active_runs, *moment)
        for of_process in reversed(self.processes.gather(errors)):
            errors |= of_process
        for run, error in sorted(errors.items()):
            self._fail(run, error)
        return self.active_runs

    def _read_figures(self) -> None:
        """Add the figures of the steps since the last reading to the progress.

        Raises:
            NotFinite: one of a run that has not failed is not finite.
        """
        for figures in self.figures.take(self.processes.sum):
            for run in self.active_runs:
                if not figures.are_finite(run):
                    raise NotFinite(figures.step)
                self.records[run].count_figures(run, figures, self.engine.models[run])

    def _end_epoch(self) -> None:
        assert self.optimizer is not None
        if not self.active_runs:
            return
        self.evaluations = self.evaluator.evaluate(*self.evaluator.of_epoch)
        for run in self.active_runs:
            record, evaluations = self.records[run], self.evaluations[run]
            epoch = record.progress.epoch + 1
            try:
                self.evaluator.check_finite(run, evaluations, epoch, record.progress.step)
            except TrainingError as error:
                self._fail(run, error)
            else:
                findings = self.evaluator.findings(evaluations)
                entry = self.evaluator.epoch_entry(epoch, record.training_figures(), evaluations, findings)
                record.close_epoch(entry, self.engine.models[run], self.rate, findings)
        self._save()
        for run in self.active_runs:
            record, model = self.records[run], self.engine.models[run]
            if record.callbacks.on_epoch:
                record.call_epoch_callbacks(model, learning_rates(self.optimizer), self.engine.device)

    def _fail(self, run: int, error: TrainingError) -> None:
        self.failures[run] = error
        self.active_runs = [number for number in self.active_runs if number != run]
        self.on_failure(run, error)

    def _log_time(self, epoch: int, seconds: float, rate: float) -> None:
        for run in self.active_runs:
            self.records[run].timing.log(epoch, seconds, rate)

    def _save(self) -> None:
        assert self.optimizer is not None
        save(self.checkpoint, self.engine, self.optimizer, [each.progress for each in self.records], self.failures)

    def _restore(self) -> bool:
        """Go to the state that the checkpoint holds; False where there is none."""
        assert self.optimizer is not None
        self.figures.take()
        texts: list[str] = []
        state = restore(self.checkpoint, self.engine, self.optimizer, texts.append)
        if state is None:
            return False
        progress, self.failures = state
        self.active_runs = [run for run in range(len(self.members)) if run not in self.failures]
        for record, of_run in zip(self.records, progress, strict=True):
            record.resume(of_run)
            for text in texts:
                record.notify("warning", text=text)
        return True
