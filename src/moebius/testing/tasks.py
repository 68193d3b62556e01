"""The contract of tasks: a loss and a score for each row, and what an output says."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from moebius.tasks._task import Task
from moebius.testing._contract import require, require_close
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject

_ROWS = 6


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


def _sample(task: Task) -> tuple[Any, Any]:
    return task.sample(_ROWS, torch.Generator().manual_seed(0))


def _change(values: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The tensor, or the tensors by name, changed by a function."""
    if isinstance(values, Mapping):
        return {name: function(value) for name, value in values.items()}
    return function(values)


def gives_a_loss_and_a_score_for_each_row(subject: Subject) -> None:
    """Losses are floats of float32 at least, also from half precision; there is one of each for a row."""
    task = subject.make()
    output, target = _sample(task)
    task.check(output, target)
    for values in (output, _change(output, torch.Tensor.bfloat16)):
        losses, scores = task.row_losses(values, target), task.row_scores(values, target)
        require(losses.shape == scores.shape == (_ROWS,), "needs a loss and a score for each row")
        require(losses.is_floating_point() and losses.itemsize >= 4, f"gives losses in {losses.dtype}")
        require(bool(losses.isfinite().all()), "gives losses that are not finite")


def treats_rows_alone(subject: Subject) -> None:
    """A row has the loss, the score and the metrics that it has by itself."""
    task = subject.make()
    output, target = _sample(task)
    task = task.for_data(target)

    def figures(output: Any, target: Any) -> torch.Tensor:
        metrics = task.row_metrics(output, target).values()
        columns = [task.row_losses(output, target), task.row_scores(output, target), *metrics]
        return torch.stack([column.double() for column in columns], 1)

    def figures_of(row: int) -> torch.Tensor:
        return figures(_change(output, lambda x: x[row : row + 1]), _change(target, lambda x: x[row : row + 1]))

    alone = torch.cat([figures_of(row) for row in range(_ROWS)])
    require_close(figures(output, target), alone, "gives a row other values in a batch")


def gives_each_expert_the_loss_that_it_has_alone(subject: Subject) -> None:
    """`expert_losses` are `row_losses` of each expert's outputs."""
    task = subject.make()
    output, target = _sample(task)
    outputs = torch.stack([output, -output, 2 * output], 1)
    alone = torch.stack([task.row_losses(expert, target) for expert in outputs.unbind(1)], 1)
    require_close(task.expert_losses(outputs, target), alone, "gives an expert another loss than it has alone")


def accepts_experts_that_give_what_a_model_gives(subject: Subject) -> None:
    """An expert whose outputs have the model's shape does the whole task, and one of no numbers does not."""
    task = subject.make()
    output, _ = _sample(task)
    if isinstance(output, torch.Tensor):
        shape = tuple(output.shape[1:])
        require(task.accepts_expert(shape, shape), f"does not accept experts of the model's own shape {shape}")
        require(not task.accepts_expert((0, *shape), shape), "accepts experts of a shape without numbers")


def predicts_columns_of_rows(subject: Subject) -> None:
    """`predict` gives named columns with an entry for each row, `predictions` first."""
    task = subject.make()
    columns = task.predict(_sample(task)[0])
    require(next(iter(columns), None) == "predictions", "needs a column called predictions, the first one")
    require(all(len(column) == _ROWS for column in columns.values()), "needs columns of rows")


def names_its_loss_and_its_score(subject: Subject) -> None:
    """Metrics and results show both under the task's own names, which are none of those that training has."""
    task = subject.make()
    names = [task.loss_name, task.score_name]
    require(all(isinstance(name, str) and name.isidentifier() for name in names), f"has the names {names}")
    require({"loss", "l2"}.isdisjoint(names), f"has the names {names}, and loss and l2 are terms of training itself")


def has_losses_with_gradients(subject: Subject) -> None:
    """The gradient of the mean loss is finite and not zero."""
    task = subject.make()
    output, target = _sample(task)
    output = _change(output, lambda values: values.clone().requires_grad_())
    leaves = [*output.values()] if isinstance(output, Mapping) else [output]
    for gradient in torch.autograd.grad(task.row_losses(output, target).mean(), leaves):
        require(bool(gradient.isfinite().all() and gradient.any()), "has a gradient of zero, or one that is not finite")


CHECKS = (
    gives_a_loss_and_a_score_for_each_row,
    treats_rows_alone,
    gives_each_expert_the_loss_that_it_has_alone,
    accepts_experts_that_give_what_a_model_gives,
    predicts_columns_of_rows,
    names_its_loss_and_its_score,
    has_losses_with_gradients,
)
