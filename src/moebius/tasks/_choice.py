"""A task from what a user writes for one."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.tasks._task import Task

# What a user may write for a task.
TaskLike = Task | str | Mapping[str, Any] | Callable[[Any, Any], Tensor]


class FunctionTask(Task):
    """The task of a function (output, target) → loss of each row; the score is minus the loss.

    Arguments:
        function: gives (T,) numbers, or (T, …), of which the mean is taken for each row.

    Raises:
        ArgumentError: when called, the function gives one number for all rows.

    Reference: ours.
    """

    def __init__(self, function: Callable[[Any, Any], Tensor]):
        self.function = function

    def row_losses(self, output: Any, target: Any) -> Float[Tensor, " T"]:
        """The function's numbers, in float32 at least."""
        values = self.function(output, target)
        if not isinstance(values, Tensor) or not values.ndim:
            rule = "must give a loss for each row, and gives one number for all"
            raise ArgumentError("task", rule, values, 'nn.L1Loss(reduction="none")')
        return at_least_float32(values if values.ndim == 1 else values.flatten(1).mean(1))

    def row_scores(self, output: Any, target: Any) -> Float[Tensor, " T"]:
        """Minus the loss of each row."""
        return -self.row_losses(output, target)

    def predict(self, output: Any) -> Mapping[str, Tensor]:
        """`predictions`: the outputs."""
        return {"predictions": output} if isinstance(output, Tensor) else {"predictions": next(iter(output.values()))}


def as_task(task: TaskLike | Any) -> Task:
    """The task that is meant by an object, a kind, a mapping of a kind and keywords, or a function.

    Raises:
        ArgumentError: it is none of these, or a keyword is refused.
        UnknownKindError: no task is of this kind.

    Example:
        >>> as_task({"kind": "regression", "loss": "huber"}).loss_name
        'huber'
        >>> import torch
        >>> as_task(torch.nn.L1Loss(reduction="none")).row_losses(torch.zeros(2), torch.ones(2))
        tensor([1., 1.])
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, type) and issubclass(task, Task):
        return task()
    if isinstance(task, str):
        return find("tasks", task)()
    if isinstance(task, Mapping) and "kind" in task:
        make, keywords = find("tasks", task["kind"]), {name: value for name, value in task.items() if name != "kind"}
        try:
            inspect.signature(make).bind(**keywords)
        except TypeError as error:
            names = ", ".join(inspect.signature(make).parameters) or "none"
            raise ArgumentError("task", f"{error}", sorted(keywords), f"keywords of {task['kind']}: {names}") from None
        if "tasks" in keywords:
            keywords["tasks"] = {name: as_task(each) for name, each in keywords["tasks"].items()}
        return make(**keywords)
    if callable(task):
        return FunctionTask(cast(Callable[[Any, Any], Tensor], task))
    rule = f"needs one of {', '.join(kinds('tasks'))}, a task, or a function (output, target) → loss of each row"
    raise ArgumentError("task", rule, task, 'task="regression"')
