"""Training the runs of a cohort as one: equal mixtures on stacked parameters; each run has its rows and its losses."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from moebius.core.recording import Recorder
from moebius.kit.errors import TrainingError
from moebius.lab.data.batches import Batch, Batches, scale_pixels
from moebius.lab.data.split import Dataset
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.call_model import call_model, gives_log_probabilities
from moebius.lab.training.checkpoint import restore_cohort, save, save_cohort
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.cohort_objective import CohortObjective, are_finite, clip_gradients, figures
from moebius.lab.training.evaluation import Evaluation, evaluate_runs
from moebius.lab.training.evaluator import Evaluator
from moebius.lab.training.mixture_parts import trainable_parts
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import PartSchedule, build_optimizer, set_modes
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.penalty import kernels
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture


@dataclass(frozen=True)
class CohortMember:
    """One run of a cohort.

    Arguments:
        build: makes the untrained mixture; called once, after seeding.
        settings: how to train: equal in all members but for gate losses and the weight of the cross-entropy.
        seed: of the initialisation and the order of rows.
        folder: of the run.
        listen: receives the events.
    """

    build: Callable[[], Mixture]
    settings: Settings
    seed: int
    folder: Path
    listen: Callable[[Event], None] = lambda event: None


class CohortTrainer:
    """Trains the members of a cohort in step, from their last checkpoint if there is one.

    The outcome of each run is what `Trainer` makes of it alone, to rounding. A run whose loss is not finite fails by
    itself: the others go on, with the bits that they would have had in this cohort. `cohort_obstacle` tells which
    models can train so.

    Arguments:
        members: the runs.
        data: the rows.
        checkpoint: the file that holds the state of all runs.
        device: "cpu" or "cuda".
        on_failure: receives the number of a member that failed, and the error.
    """

    def __init__(
        self,
        members: Sequence[CohortMember],
        data: Dataset,
        checkpoint: Path,
        device: str = "cpu",
        on_failure: Callable[[int, TrainingError], None] = lambda run, error: None,
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
        self.members, self.checkpoint, self.on_failure = members, checkpoint, on_failure
        self.settings = settings = members[0].settings
        self.models: list[Mixture] = []
        self.random_states: list[Tensor] = []
        for member in members:
            torch.manual_seed(member.seed)
            self.models.append(member.build().to(accelerator.device))
            self.random_states.append(torch.get_rng_state())
        self.cohort_model = CohortModel(self.models)
        self.model = self.cohort_model.model
        first, leaves = self.models[0], self.cohort_model.leaves
        trained = {name: [leaves[each] for each in parameters] for name, parameters in trainable_parts(first).items()}
        self.optimizer = build_optimizer(first, settings, trained)
        self.part_schedule = PartSchedule(self.optimizer, trained, settings)
        self.parameters = {name: leaves[parameter] for name, parameter in first.named_parameters()}
        self.leaves = list(self.parameters.values())
        penalised = [] if settings.l2 is None else kernels(first, settings.l2.layers)
        penalised_leaves = [leaves[kernel] for kernel in penalised]  # pyright: ignore[reportArgumentType]
        gives_logs = gives_log_probabilities(first)
        objectives = [
            Objective(gives_logs, member.settings.losses, member.settings.cross_entropy) for member in members
        ]
        self.objective = CohortObjective(self.cohort_model, objectives, settings.l2, penalised_leaves)
        self.annealing = Annealing(self.model, settings.router)
        self.recorder = Recorder(self.model)
        self.data = data = _move(data, accelerator.device)
        self.evaluators = [
            Evaluator(model, model, objective, data, accelerator, OutputCaches(model), use_caches=False)
            for model, objective in zip(self.models, objectives, strict=True)
        ]
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        has_validation = data.validation is not None
        self.run_records = [
            RunRecord(member.folder, member.settings, self.steps_per_epoch, has_validation, member.listen)
            for member in members
        ]
        self.failures: dict[int, TrainingError] = {}

    @property
    def active_runs(self) -> list[int]:
        """The members that have not failed."""
        return [run for run in range(len(self.members)) if run not in self.failures]

    @property
    def clock(self) -> RunRecord:
        """The record of a run that has not failed: all of these are at the same step."""
        return self.run_records[self.active_runs[0]]

    def train(self, reported_runs: Collection[int] | None = None) -> Iterator[tuple[int, Trained]]:
        """Train all members to the end, then yield the outcome of each that did not fail.

        Arguments:
            reported_runs: the members whose outcome is yielded; None for all.
        """
        self._resume()
        while self.active_runs and not self.clock.is_finished:
            self.train_epoch()
            self._end_epoch()
        reported = [run for run in self.active_runs if reported_runs is None or run in reported_runs]
        if not reported:
            return
        for run in reported:
            self._save_run(run)
        epochs = {run: self.run_records[run].restore_reported_epoch(self.models[run]) for run in self.active_runs}
        evaluations = self._evaluate_runs("training", "test", "validation")
        for run in reported:
            metrics = self.run_records[run].progress.metrics
            try:
                outcome = self.evaluators[run].build_outcome(metrics, epochs[run], evaluations=evaluations[run])
            except TrainingError as error:
                self._fail(run, error)
            else:
                yield run, outcome

    def _resume(self) -> None:
        checkpoint = restore_cohort(self.checkpoint, self.parameters, self.optimizer)
        if checkpoint is None:
            return
        progress, failures = checkpoint
        for run, run_progress in enumerate(progress):
            if run in failures:
                self.run_records[run].progress = run_progress
                self._fail(run, failures[run])
            else:
                self.run_records[run].resume(run_progress)

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch that the progress names."""
        clock, settings, runs = self.clock.progress, self.settings, len(self.members)
        names = self.objective.names
        sums = [
            [record.progress.terms.get(name, 0.0) for name in run_names]
            for run_names, record in zip(names, self.run_records, strict=True)
        ]
        size, train = settings.batch_size, self.data.train
        orders = [Batches(train, size, member.seed, clock.epoch).order for member in self.members]
        order = torch.stack(orders).to(train.labels.device)
        begun = last_save = last_event = time.monotonic()
        rows_before = clock.rows
        seconds_before = self.clock.timing.before(clock.epoch + 1) if clock.batch else 0.0
        modes = None
        for start in range(clock.batch * size, len(train), size):
            epoch = clock.epoch + clock.batch / self.steps_per_epoch
            if (new_modes := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.model, settings, epoch)
                modes = new_modes
            rows = order[:, start : start + size]
            values = self._step(rows.flatten(), epoch)
            for run in self.active_runs:
                *terms, correct = values[run]
                sums[run] = [total + rows.shape[1] * term for total, term in zip(sums[run], terms, strict=True)]
                self.run_records[run].count_step(rows.shape[1], int(correct))
            if not self.active_runs:
                return
            clock = self.clock.progress
            now = time.monotonic()
            save_is_due = clock.step == 1 or now - last_save > settings.checkpoint_seconds
            if save_is_due or now - last_event > 0.2:
                self._record_terms(names, sums)
                rate = runs * (clock.rows - rows_before) / (now - begun)
                if save_is_due:
                    self._save()
                    self._log_time(clock.epoch + 1, seconds_before + (now - begun) / runs, rate)
                    last_save = now
                for run in self.active_runs:
                    self.run_records[run].notify("step", rate)
                last_event = now
        self._record_terms(names, sums)
        seconds = time.monotonic() - begun
        self.rate = runs * (clock.rows - rows_before) / seconds
        # A run's share of the time: the shares of all runs add up to the time that has passed.
        self._log_time(clock.epoch + 1, seconds_before + seconds / runs, self.rate)

    def _step(self, rows: Tensor, epoch: float) -> list[list[float]]:
        """One update; returns for each run the total, the terms, and how many of its rows were right before it."""
        train, runs = self.data.train, len(self.members)
        self.part_schedule.apply(epoch)
        x, labels, domains = scale_pixels(train.images.index_select(0, rows)), train.labels[rows], train.domains[rows]
        with self.annealing.at(epoch), self.recorder.recording(self.objective.needs_outputs) as log:
            output = call_model(self.model, x, domains)
        totals = self.objective(output, labels, log, epoch)
        values = figures(totals, (output.detach().argmax(-1) == labels).view(runs, -1).sum(1))
        for run in self.active_runs:
            if not are_finite(values[run]):
                batch = Batch(*(column.unflatten(0, (runs, -1))[run] for column in (x, labels, domains, rows)))
                progress = self.run_records[run].progress
                terms, moment = totals[run][1], (progress.epoch + 1, progress.step + 1)
                self._fail(run, nonfinite_error(self.models[run], batch, terms, *moment))
        for parameter in self.leaves:
            parameter.grad = None
        losses = [totals[run][0] for run in self.active_runs]
        if losses and any(loss.requires_grad for loss in losses):
            torch.stack(losses).sum().backward()
            if self.settings.clip_norm is not None:
                clip_gradients(self.leaves, self.settings.clip_norm)
            self.optimizer.step()
        return values

    def _end_epoch(self) -> None:
        evaluations = self._evaluate_runs("test", "validation")
        for run in self.active_runs:
            record = self.run_records[run]
            epoch, step = record.progress.epoch + 1, record.progress.step
            try:
                entry = self.evaluators[run].epoch_entry(epoch, record.training_figures(), step, evaluations[run])
            except TrainingError as error:
                self._fail(run, error)
            else:
                record.close_epoch(entry, self.models[run], self.rate)
        self._save()

    def _evaluate_runs(self, *names: str) -> list[dict[str, Evaluation]]:
        """For each run its evaluations on the splits of these names, as far as the data have them."""
        evaluator, runs = self.evaluators[0], len(self.members)
        names = tuple(
            name
            for name in names
            if name in evaluator.splits and not (name == "validation" and evaluator.validation_is_test)
        )
        objective = self.objective.objectives[0]
        by_split = {name: evaluate_runs(self.model, runs, objective, evaluator.splits[name]) for name in names}
        return [{name: evaluations[run] for name, evaluations in by_split.items()} for run in range(runs)]

    def _fail(self, run: int, error: TrainingError) -> None:
        self.failures[run] = error
        self.on_failure(run, error)

    def _record_terms(self, names: Sequence[Sequence[str]], sums: Sequence[Sequence[float]]) -> None:
        for run in self.active_runs:
            self.run_records[run].progress.terms = dict(zip(names[run], sums[run], strict=True))

    def _log_time(self, epoch: int, seconds: float, rate: float) -> None:
        for run in self.active_runs:
            self.run_records[run].timing.log(epoch, seconds, rate)

    def _save(self) -> None:
        progress = [record.progress for record in self.run_records]
        save_cohort(self.checkpoint, self.parameters, self.optimizer, progress, self.failures)

    def _save_run(self, run: int) -> None:
        """Write the checkpoint that the run would have had alone."""
        model, record = self.models[run], self.run_records[run]
        optimizer = build_optimizer(model, self.settings)
        parameters = dict(model.named_parameters())
        for name, leaf in self.parameters.items():
            for key, value in self.optimizer.state.get(leaf, {}).items():
                optimizer.state[parameters[name]][key] = value[run] if value.shape == leaf.shape else value
        torch.set_rng_state(self.random_states[run])
        save(record.folder / "state" / "checkpoint.safetensors", model, optimizer, record.progress)


def _move(data: Dataset, device: torch.device) -> Dataset:
    """The data on the device, each split once."""
    splits = {id(split): split.to(device) for split in (data.train, data.validation, data.test) if split is not None}
    validation = None if data.validation is None else splits[id(data.validation)]
    return replace(data, train=splits[id(data.train)], validation=validation, test=splits[id(data.test)])
