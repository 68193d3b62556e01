"""The contract of tasks: a loss and a score for each row, and what an output says."""

from collections.abc import Callable
from typing import Any

import torch

from moebius.tasks._task import Task
from moebius.testing._contract import require, require_close
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_ROWS, _EXPERTS, _OUTPUTS = 6, 3, 4


def check_task(task: Callable[..., Task], **arguments: Any) -> None:
    """Hold a task to the contract of the room `tasks`: every function of `CHECKS`.

    Arguments:
        task: the class, or a function that makes a task.
        arguments: for the constructor.

    Raises:
        ContractError: the first rule that the task breaks.

    Example:
        >>> from moebius.tasks import Classification
        >>> check_task(Classification)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("tasks", task, arguments))


def _sample() -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of three experts for six rows, and targets."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(_ROWS, _EXPERTS, _OUTPUTS, generator=generator)
    return outputs, torch.randint(0, _OUTPUTS, (_ROWS,), generator=generator)


def gives_a_loss_and_a_score_for_each_row(subject: Subject) -> None:
    """Losses are floats of float32 at least, also from half precision; there is one of each for a row."""
    task, (outputs, target) = subject.make(), _sample()
    for output in (outputs[:, 0], outputs[:, 0].bfloat16()):
        losses, scores = task.row_losses(output, target), task.row_scores(output, target)
        require(losses.shape == scores.shape == (_ROWS,), "needs a loss and a score for each row")
        require(losses.is_floating_point() and losses.itemsize >= 4, f"gives losses in {losses.dtype}")
        require(bool(losses.isfinite().all()), "gives losses that are not finite")


def treats_rows_alone(subject: Subject) -> None:
    """A row has the loss and the score that it has by itself."""
    task, (outputs, target) = subject.make(), _sample()
    for values in (task.row_losses, task.row_scores):
        alone = torch.cat([values(outputs[row : row + 1, 0], target[row : row + 1]) for row in range(_ROWS)])
        require_close(values(outputs[:, 0], target).double(), alone.double(), "gives a row other values in a batch")


def gives_each_expert_the_loss_that_it_has_alone(subject: Subject) -> None:
    """`expert_losses` are `row_losses` of each expert's outputs."""
    task, (outputs, target) = subject.make(), _sample()
    alone = torch.stack([task.row_losses(outputs[:, expert], target) for expert in range(_EXPERTS)], 1)
    require_close(task.expert_losses(outputs, target), alone, "gives an expert another loss than it has alone")


def predicts_columns_of_rows(subject: Subject) -> None:
    """`predict` gives named columns with an entry for each row."""
    task, (outputs, _) = subject.make(), _sample()
    columns = task.predict(outputs[:, 0])
    require(bool(columns) and all(len(column) == _ROWS for column in columns.values()), "needs columns of rows")


def names_its_loss_and_its_score(subject: Subject) -> None:
    """Metrics and results show the loss and the score under the task's own names."""
    task = subject.make()
    names = [task.loss_name, task.score_name]
    require(all(isinstance(name, str) and name.isidentifier() for name in names), f"has the names {names}")


def has_losses_with_gradients(subject: Subject) -> None:
    """The gradient of the mean loss is finite and not zero."""
    task, (outputs, target) = subject.make(), _sample()
    output = outputs[:, 0].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.row_losses(output, target).mean(), output)
    require(bool(gradient.isfinite().all() and gradient.any()), "has a gradient of zero, or one that is not finite")


CHECKS = (
    gives_a_loss_and_a_score_for_each_row,
    treats_rows_alone,
    gives_each_expert_the_loss_that_it_has_alone,
    predicts_columns_of_rows,
    names_its_loss_and_its_score,
    has_losses_with_gradients,
)
