"""Training several runs as one: equal mixtures on stacked parameters, each with its own rows, losses and figures."""

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
from moebius.lab.data.batches import Batch, Batches, scale
from moebius.lab.data.split import Dataset
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.checkpoint import restore_cohort, save, save_cohort
from moebius.lab.training.cohort_model import CohortModel
from moebius.lab.training.cohort_objective import CohortObjective, clip, figures, finite
from moebius.lab.training.evaluation import Evaluation, evaluate_runs
from moebius.lab.training.evaluator import Evaluator
from moebius.lab.training.nonfinite_error import nonfinite_error
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import build_optimizer, prepare_epoch, set_modes
from moebius.lab.training.outcome import Event, Trained
from moebius.lab.training.output_caches import OutputCaches
from moebius.lab.training.penalty import kernels
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.settings import Settings
from moebius.layers.mixture import Mixture


@dataclass(frozen=True)
class CohortMember:
    """One run of a stack.

    Arguments:
        build: makes the untrained mixture; called once, after seeding.
        settings: how to train: equal in all members but for gate losses and the weight of the cross-entropy.
        seed: of the initialisation and the order of rows.
        folder: of the run.
        listen: hears of progress.
    """

    build: Callable[[], Mixture]
    settings: Settings
    seed: int
    folder: Path
    listen: Callable[[Event], None] = lambda event: None


class CohortTrainer:
    """Trains the members of a stack in step, from their last checkpoint if there is one.

    What comes out of each is what `Trainer` makes of it alone, to rounding. A run whose loss is not finite fails by
    itself: the others go on, with the bits that they would have had in this stack. What can be stacked says
    `stacking.why_not`.

    Arguments:
        members: the runs.
        data: the rows.
        checkpoint: the file that holds the state of them all.
        device: "cpu" or "cuda".
        failed: hears which member failed, and why.
    """

    def __init__(
        self,
        members: Sequence[CohortMember],
        data: Dataset,
        checkpoint: Path,
        device: str = "cpu",
        failed: Callable[[int, TrainingError], None] = lambda run, error: None,
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
        self.members, self.checkpoint, self.failed = members, checkpoint, failed
        self.settings = settings = members[0].settings
        self.models: list[Mixture] = []
        self.random: list[Tensor] = []
        for member in members:
            torch.manual_seed(member.seed)
            self.models.append(member.build().to(accelerator.device))
            self.random.append(torch.get_rng_state())
        self.stack = CohortModel(self.models)
        first = self.models[0]
        self.optimizer = build_optimizer(first, settings, self.stack.leaves)
        self.parameters = {name: self.stack.leaves[one] for name, one in first.named_parameters()}
        self.leaves = list(self.parameters.values())
        penalised = [] if settings.l2 is None else kernels(first, settings.l2.layers)
        stacked = [self.stack.leaves[one] for one in penalised]  # pyright: ignore[reportArgumentType]
        logs = getattr(first.combine, "gives_log_probabilities", False)
        objectives = [Objective(logs, one.settings.losses, one.settings.cross_entropy) for one in members]
        self.objective = CohortObjective(self.stack, objectives, settings.l2, stacked)
        self.annealing = Annealing(self.stack.model, settings.router)
        self.recorder = Recorder(self.stack.model)
        self.data = data = _moved(data, accelerator.device)
        self.examiners = [
            Evaluator(model, model, objective, data, accelerator, OutputCaches(model), remember=False)
            for model, objective in zip(self.models, objectives, strict=True)
        ]
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        held_out = data.validation is not None
        self.accounts = [
            RunRecord(one.folder, one.settings, self.steps_per_epoch, held_out, one.listen) for one in members
        ]
        self.failures: dict[int, TrainingError] = {}

    @property
    def alive(self) -> list[int]:
        """The members that have not failed."""
        return [run for run in range(len(self.members)) if run not in self.failures]

    def train(self, wanted: Collection[int] | None = None) -> Iterator[tuple[int, Trained]]:
        """Train all members to the end, then give what came out of each that did not fail.

        Arguments:
            wanted: the members whose outcome is asked for; None for all.
        """
        restored = restore_cohort(self.checkpoint, self.parameters, self.optimizer)
        if restored is not None:
            progress, failures = restored
            for run, one in enumerate(progress):
                if run in failures:
                    self.accounts[run].progress = one
                    self._fail(run, failures[run])
                else:
                    self.accounts[run].take_up(one)
        while self.alive and not self.accounts[self.alive[0]].over:
            self.train_epoch()
            self._end_epoch()
        asked = [run for run in self.alive if wanted is None or run in wanted]
        if not asked:
            return
        for run in asked:
            self._save_alone(run)
        reported = {run: self.accounts[run].report(self.models[run]) for run in self.alive}
        known = self._looked("training", "test", "validation")
        for run in asked:
            metrics = self.accounts[run].progress.metrics
            try:
                outcome = self.examiners[run].outcome(metrics, reported[run], known=known[run])
            except TrainingError as error:
                self._fail(run, error)
            else:
                yield run, outcome

    def train_epoch(self) -> None:
        """Train the epoch under way to its end, from the batch where it stands."""
        clock, settings, runs = self.accounts[self.alive[0]].progress, self.settings, len(self.members)
        names = self.objective.names
        sums = [
            [account.progress.terms.get(name, 0.0) for name in own]
            for own, account in zip(names, self.accounts, strict=True)
        ]
        size, train = settings.batch_size, self.data.train
        orders = [Batches(train, size, one.seed, clock.epoch).order for one in self.members]
        order = torch.stack(orders).to(train.labels.device)
        begun = saved = told = time.monotonic()
        first = clock.rows
        before = self.accounts[self.alive[0]].timing.before(clock.epoch + 1) if clock.batch else 0.0
        modes = None
        for start in range(clock.batch * size, len(train), size):
            epoch = clock.epoch + clock.batch / self.steps_per_epoch
            if (now_train := (settings.gate.trains(epoch), settings.experts.trains(epoch))) != modes:
                set_modes(self.stack.model, settings, epoch)
                modes = now_train
            rows = order[:, start : start + size]
            values = self._step(rows.flatten(), epoch)
            for run in self.alive:
                *terms, right = values[run]
                sums[run] = [total + rows.shape[1] * term for total, term in zip(sums[run], terms, strict=True)]
                self.accounts[run].count(rows.shape[1], int(right))
            if not self.alive:
                return
            clock = self.accounts[self.alive[0]].progress
            now = time.monotonic()
            due = clock.step == 1 or now - saved > settings.checkpoint_seconds
            if due or now - told > 0.2:
                self._note_terms(names, sums)
                rate = runs * (clock.rows - first) / (now - begun)
                if due:
                    self._save()
                    self._log_time(clock.epoch + 1, before + (now - begun) / runs, rate)
                    saved = now
                for run in self.alive:
                    self.accounts[run].tell("step", rate)
                told = now
        self._note_terms(names, sums)
        seconds = time.monotonic() - begun
        self.rate = runs * (clock.rows - first) / seconds
        # A run's share of the time: those of all runs add up to what has passed.
        self._log_time(clock.epoch + 1, before + seconds / runs, self.rate)

    def _step(self, rows: Tensor, epoch: float) -> list[list[float]]:
        """One update; of each run the total, the terms, and how many of its rows were right before it."""
        train, runs = self.data.train, len(self.members)
        prepare_epoch(self.optimizer, self.settings, epoch)
        x, labels, domains = scale(train.images.index_select(0, rows)), train.labels[rows], train.domains[rows]
        with self.annealing.at(epoch), self.recorder.recording(self.objective.needs_outputs) as log:
            output = self.stack.model(x, {"domain": domains})
        found = self.objective(output, labels, log, epoch)
        values = figures(found, (output.detach().argmax(-1) == labels).view(runs, -1).sum(1))
        for run in self.alive:
            if not finite(values[run]):
                own = Batch(*(one.unflatten(0, (runs, -1))[run] for one in (x, labels, domains, rows)))
                where = self.accounts[run].progress
                self._fail(run, nonfinite_error(self.models[run], own, found[run][1], where.epoch + 1, where.step + 1))
        for parameter in self.leaves:
            parameter.grad = None
        totals = [found[run][0] for run in self.alive]
        if totals and any(total.requires_grad for total in totals):
            torch.stack(totals).sum().backward()
            if self.settings.clip_norm is not None:
                clip(self.leaves, self.settings.clip_norm)
            self.optimizer.step()
        return values

    def _end_epoch(self) -> None:
        known = self._looked("test", "validation")
        for run in self.alive:
            account = self.accounts[run]
            epoch, step = account.progress.epoch + 1, account.progress.step
            try:
                entry = self.examiners[run].entry(epoch, account.trained(), step, known[run])
            except TrainingError as error:
                self._fail(run, error)
            else:
                account.close_epoch(entry, self.models[run], self.rate)
        self._save()

    def _looked(self, *names: str) -> list[dict[str, Evaluation]]:
        """For each run what comes out on these splits, of those that there are."""
        examiner, runs = self.examiners[0], len(self.members)
        given = (self.stack.model, runs, self.objective.objectives[0])
        asked = [name for name in names if name in examiner.splits]
        if examiner.one_and_the_same:
            asked.remove("validation")
        looked = {name: evaluate_runs(*given, examiner.splits[name]) for name in asked}
        return [{name: evaluations[run] for name, evaluations in looked.items()} for run in range(runs)]

    def _fail(self, run: int, error: TrainingError) -> None:
        self.failures[run] = error
        self.failed(run, error)

    def _note_terms(self, names: Sequence[Sequence[str]], sums: Sequence[Sequence[float]]) -> None:
        for run in self.alive:
            self.accounts[run].progress.terms = dict(zip(names[run], sums[run], strict=True))

    def _log_time(self, epoch: int, seconds: float, rate: float) -> None:
        for run in self.alive:
            self.accounts[run].timing.log(epoch, seconds, rate)

    def _save(self) -> None:
        progress = [account.progress for account in self.accounts]
        save_cohort(self.checkpoint, self.parameters, self.optimizer, progress, self.failures)

    def _save_alone(self, run: int) -> None:
        """Write the checkpoint that the run would have had alone."""
        model, account = self.models[run], self.accounts[run]
        optimizer = build_optimizer(model, self.settings)
        own = dict(model.named_parameters())
        for name, stacked in self.parameters.items():
            for key, value in self.optimizer.state.get(stacked, {}).items():
                optimizer.state[own[name]][key] = value[run] if value.shape == stacked.shape else value
        torch.set_rng_state(self.random[run])
        save(account.folder / "state" / "checkpoint.safetensors", model, optimizer, account.progress)


def _moved(data: Dataset, device: torch.device) -> Dataset:
    """The data on the device, each split once."""
    splits = {id(split): split.to(device) for split in (data.train, data.validation, data.test) if split is not None}
    held_out = None if data.validation is None else splits[id(data.validation)]
    return replace(data, train=splits[id(data.train)], validation=held_out, test=splits[id(data.test)])
