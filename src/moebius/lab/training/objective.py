"""What training minimises: the loss of the task plus weighted gate losses and the penalty on kernels."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.core.loss_needs import loss_needs
from moebius.core.recording import Log
from moebius.kit.errors import ArgumentError
from moebius.lab.training.gate_losses import GateLoss
from moebius.lab.training.penalty import l2
from moebius.lab.training.settings import Settings
from moebius.tasks._task import Task


class Objective:
    """total = c(epoch) · task loss + Σ_k weight_k(epoch) · loss_k + weight · Σ w², for each of S ≥ 1 runs.

    The task's loss is the mean over rows; loss_k is summed over the mixtures of the model. A loss that needs
    `expert_losses` (see `mb.needs`) receives each expert's own loss on each row, (T, E); then all experts run on all
    rows, whatever the router chooses.

    Arguments:
        task: what is learned, as these models' outputs are to be read.
        settings: of each run: its gate losses (one whose weight is 0 at an epoch is still reported, without a
            gradient), c (0 where the experts are trained one by one) and the penalty, which all have in common.
        kernels: what the penalty is on; of several runs, stacked: (S, …).

    Reference: ours; studies 1, 2, 3 and 5.
    """

    def __init__(self, task: Task, settings: Sequence[Settings], kernels: Sequence[Tensor] = ()):
        self.task, self.settings, self.kernels = task, tuple(settings), tuple(kernels)
        for loss in (loss for each in settings for loss in each.losses):
            if loss_needs(loss.function).classes and task.target_type in ("numbers", "labels"):
                rule = f"reads the experts' outputs as logits of classes, and the task learns {task.target_type}"
                raise ArgumentError(f"losses.{loss.name}", rule, type(task).__name__, "losses: [best_fit]")
        self.comparing = {
            id(loss) for each in settings for loss in each.losses if loss_needs(loss.function).expert_losses
        }

    @property
    def needs_routings(self) -> bool:
        """Whether a term is computed of the routings."""
        return any(each.losses for each in self.settings)

    @property
    def needs_outputs(self) -> bool:
        """Whether the routings have to hold the outputs of all experts."""
        return bool(self.comparing)

    def __call__(self, output: Any, target: Any, logs: Sequence[Log], epoch: float) -> list[dict[str, Tensor]]:
        """The terms of each run: "loss", the total with its gradient, then the unweighted terms that it is made of.

        Arguments:
            output: of the model, for the rows of all runs in turn.
            target: of these rows.
            logs: for each run the routings of its mixtures, from `record` (with `outputs=True` where `needs_outputs`);
                empty unless `needs_routings`.
            epoch: for the weights' schedules; 0 at the start, 1.5 in the middle of the second epoch.

        Raises:
            ArgumentError: a loss returns something else than one number, or compares experts that do not do the task.
        """
        runs = len(self.settings)
        losses = self.task.row_losses(output, target)
        # A run alone takes no views of views: small models spend their step on calls.
        rows = len(losses) // runs
        means = [_mean(losses)] if runs == 1 else _mean(losses.view(runs, rows)).unbind()
        targets = [target] if runs == 1 else target.unflatten(0, (runs, rows)).unbind()
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        terms = [self._run_terms(*run, shape, epoch) for run in zip(self.settings, means, targets, logs, strict=True)]
        penalty = self.settings[0].l2
        if penalty is not None and self.kernels:
            for run_terms, value in zip(terms, l2(self.kernels, runs).unbind(), strict=True):
                run_terms["loss"] = run_terms["loss"] + penalty.weight * value
                run_terms["l2"] = value.detach()
        return terms

    def _run_terms(
        self,
        settings: Settings,
        loss: Float[Tensor, ""],
        target: Any,
        log: Log,
        shape: tuple[int, ...],
        epoch: float,
    ) -> dict[str, Tensor]:
        weight = settings.cross_entropy(epoch)
        # Not 0 · loss: an output that the objective does not use may be infinite.
        total = loss if weight == 1 else weight * loss if weight else loss.new_zeros(())
        # The total last: a task whose loss has the same name must not replace it.
        terms = {self.task.loss_name: loss.detach(), "loss": total}
        if not settings.losses:
            return terms
        routings = [routing for calls in log.values() for routing in calls]
        compares = any(id(gate_loss) in self.comparing for gate_loss in settings.losses)
        comparisons = expert_losses(self.task, log, target, shape) if compares else [None] * len(routings)
        for gate_loss in settings.losses:
            function = gate_loss.at(epoch)
            values = [
                _check_scalar(gate_loss, function(routing, expert_losses=comparison))
                if id(gate_loss) in self.comparing
                else _check_scalar(gate_loss, function(routing))
                for routing, comparison in zip(routings, comparisons, strict=True)
            ]
            value = torch.stack(values).sum() if values else loss.new_zeros(())
            weight = gate_loss.weight(epoch)
            if weight:
                terms["loss"] = terms["loss"] + weight * value
            terms[gate_loss.name] = value.detach()
        return terms


def _mean(losses: Float[Tensor, "*S T"]) -> Float[Tensor, "*S"]:
    """The mean over rows; 0, with a gradient of zero, for a process that has no row of a step."""
    return losses.mean(-1) if losses.shape[-1] else losses.sum(-1)


def _check_scalar(loss: GateLoss, value: object) -> Tensor:
    """`value` if it is a tensor of shape ()."""
    if isinstance(value, Tensor) and value.shape == ():
        return value
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    rule = "must return one number, a tensor of shape ()"
    raise ArgumentError(f"losses.{loss.name}", rule, shape, "return values.mean()")


def expert_losses(task: Task, log: Log, target: Any, shape: tuple[int, ...]) -> list[Float[Tensor, "T E"]]:
    """Each expert's own loss on each row, for every routing of a log; on each position of a row where these are routed.

    Arguments:
        task: what is learned.
        log: its routings have the outputs (T, E, …) of all experts.
        target: of the rows of the outermost batch.
        shape: of the model's output for a row.

    Raises:
        ArgumentError: a routing holds no outputs, outputs that the task does not read, or not one row for each target.
    """
    routings = [routing for calls in log.values() for routing in calls]
    for routing in routings:
        if routing.outputs is None:
            rule = "a loss that compares experts needs the outputs of all of them"
            raise ArgumentError("losses", rule, None, "with mb.record(model, outputs=True) as log: …")
        own_shape, rows = tuple(routing.outputs.shape[2:]), len(routing.outputs)
        does_rows = task.accepts_expert(own_shape, shape) and (routing.rows is not None or rows == len(target))
        does_positions = own_shape == shape[-1:] and isinstance(target, Tensor) and rows == target.numel()
        if not (does_rows or does_positions):
            rule = f"a loss that compares experts needs outputs of shape (rows, experts, {', '.join(map(str, shape))})"
            fix = "a loss without expert_losses, such as mb.losses.batch_entropy, or experts that do the whole task"
            raise ArgumentError("losses", rule, tuple(routing.outputs.shape), fix)
    return [
        task.expert_losses(routing.outputs, target if routing.rows is None else target[routing.rows])
        for routing in routings
        if routing.outputs is not None
    ]
