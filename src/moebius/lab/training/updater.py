"""The updates of S ≥ 1 runs that train in step: forward, backward and the optimizer."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from moebius.core.routing import Router
from moebius.lab.data.batches import Batch
from moebius.lab.data.nested import map_nested
from moebius.lab.training.annealing import Annealing
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.mixture_parts import untrained_gates
from moebius.lab.training.objective import Objective
from moebius.lab.training.optimizer import PartSchedule, build_optimizer, learning_rates
from moebius.lab.training.penalty import kernels
from moebius.lab.training.processes import Processes
from moebius.lab.training.run_record import RunRecord
from moebius.lab.training.step_figures import StepFigures
from moebius.tasks._task import Task

Terms = Sequence[dict[str, Tensor]]
# Reads the terms of a batch, one mapping a run, and returns the runs that have not failed.
Check = Callable[[Batch, Terms], Sequence[int]]


class Updater:
    """Updates the models of an engine; figures of its steps stay on the device.

    A step has one batch, or several whose gradients add up: each counts by its share of the step's rows, so that the
    gradient is that of one batch of all these rows. Gate losses are computed batch by batch. Processes share a batch in
    the same way; their gate losses are of the rows of all, whose gradient is the sum, too.

    Arguments:
        engine: with the models.
        members: the runs, as the engine has them.
        task: what is learned, as the models' outputs are to be read.
        keeps_rates: whether the figures of a step hold its learning rates.
        processes: that have shares of each batch.

    Attributes:
        optimizer: None where nothing can be trained.
        part_schedule: of its rates and of what trains; None without an optimizer.
        figures: of the steps.
    """

    def __init__(
        self,
        engine: Engine,
        members: Sequence[Member],
        task: Task,
        keeps_rates: bool = False,
        processes: Processes | None = None,
    ):
        self.engine, self.task, self.keeps_rates = engine, task, keeps_rates
        self.processes = processes or Processes.current()
        self.settings = settings = members[0].settings
        first = engine.models[0]
        penalised = [] if settings.l2 is None else kernels(first, settings.l2.layers)
        stacked = [engine.stacked(kernel) for kernel in penalised]  # type: ignore[arg-type]
        self.objective = Objective(task, [member.settings for member in members], stacked)
        self.annealing = Annealing(engine.call.model, settings.router)
        is_trainable = any(engine.trained.values())
        self.optimizer = build_optimizer(first, settings, engine.trained) if is_trainable else None
        self.part_schedule = None
        if self.optimizer is not None:
            self.part_schedule = PartSchedule(self.optimizer, engine.trained, settings)
        self.leaves = list(engine.parameters.values())
        self.idle = [engine.stacked(parameter) for gate in untrained_gates(first) for parameter in gate.parameters()]
        self.routers = [module for module in engine.call.model.modules() if isinstance(module, Router)]
        self.figures = StepFigures()

    def update(
        self,
        batches: Iterable[Batch],
        rows: int,
        epoch: float,
        record: RunRecord,
        runs: Sequence[int],
        serve: Callable[[Batch], AbstractContextManager[None]],
        check: Check | None = None,
    ) -> None:
        """One step.

        Arguments:
            batches: of the step; of several processes, this one's shares.
            rows: of one run in these batches, those of all processes.
            epoch: the moment; 1.5 in the middle of the second epoch.
            record: of a run that has not failed.
            runs: numbers of the runs that have not failed.
            serve: batch → the context in which outputs of frozen parts are looked up.
            check: called for each batch before its backward pass.
        """
        assert self.optimizer is not None
        assert self.part_schedule is not None
        self.part_schedule.apply(epoch, record.watch.plateau, record.watch_state.falls)
        for parameter in self.leaves:
            parameter.grad = None
        sums: list[dict[str, Tensor]] = []
        scores: Tensor | None = None
        has_gradients = False
        for batch in batches:
            share = len(batch) / (self.engine.runs * rows)
            with serve(batch):
                terms, batch_scores = self._run(batch, epoch)
                runs = runs if check is None else check(batch, terms)
                losses = [terms[run]["loss"] for run in runs]
                total = losses[0] if len(losses) == 1 else torch.stack(losses).sum() if losses else None
                if total is not None and total.requires_grad:  # not so before any part's start_epoch
                    (total if share == 1 else total * share).backward()
                    has_gradients = True
            if share == 1:
                sums, scores = [*terms], batch_scores
                continue
            terms = [{name: value.detach() * share for name, value in of_run.items()} for of_run in terms]
            sums = [_add(*pair) for pair in zip(sums, terms, strict=True)] if sums else terms
            scores = batch_scores if scores is None else scores + batch_scores
        assert scores is not None
        rates = learning_rates(self.optimizer) if self.keeps_rates else {}
        self.figures.add(record.progress.step + 1, rows, sums, scores, rates)
        if has_gradients:
            self.processes.sum_gradients(self.leaves, self.idle)
            if self.settings.clip_norm is not None:
                self.engine.clip_gradients(self.settings.clip_norm)
            self.optimizer.step()
        # Also where nothing trains yet: a checkpoint holds no counts.
        with self.annealing.at(epoch):
            for router in self.routers:
                router.step()

    def _run(self, batch: Batch, epoch: float) -> tuple[list[dict[str, Tensor]], Tensor]:
        """The terms of each run, with gradients, and the sum of its rows' scores."""
        recorder, objective = self.engine.recorder, self.objective
        recording = recorder.recording(objective.needs_outputs) if objective.needs_routings else nullcontext({})
        with self.annealing.at(epoch), recording as log:
            output = self.engine.call(batch.x, batch.domains)
        terms = objective(output, batch.labels, self.engine.run_logs(log), epoch)
        scores = self.task.row_scores(map_nested(output, Tensor.detach), batch.labels)
        return terms, scores.view(self.engine.runs, len(batch) // self.engine.runs).sum(1)


def _add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sums[name] + value for name, value in terms.items()}
