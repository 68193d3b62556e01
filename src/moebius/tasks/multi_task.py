"""Several named tasks for each row."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification
from moebius.tasks.regression import Regression


class MultiTask(Task):
    """Named tasks, each with its outputs and targets; a row's loss is Σ weight · loss over those it has a target of.

    A target that a row lacks is NaN, or −100 where targets are whole numbers; the row then has a loss of 0 in this
    task, and no figure of it. The score is the mean score of the tasks
    that a row has a target of. Metrics are the loss, the score and the metrics of each task under `NAME_…`.

    Arguments:
        tasks: name → task.
        weights: name → factor of its loss, at least 0; 1 unless given.

    Shapes: output and target: mappings of a task's name to what this task takes.

    Example:
        >>> from moebius.tasks import Classification, Regression
        >>> task = MultiTask({"kind": Classification(), "price": Regression()}, {"price": 0.5})
        >>> output = {"kind": torch.tensor([[4.0, 0.0]]), "price": torch.tensor([[2.0]])}
        >>> task.row_losses(output, {"kind": torch.tensor([-100]), "price": torch.tensor([0.0])})
        tensor([2.])

    Reference: Caruana 1997, Multitask Learning.
    """

    loss_name: ClassVar[str] = "weighted_loss"
    score_name: ClassVar[str] = "mean_score"
    example: ClassVar[Mapping[str, Any]] = {"tasks": {"a": Classification(), "b": Regression()}, "weights": {"b": 0.5}}
    exempt: ClassVar[Mapping[str, str]] = {
        "gives_each_expert_the_loss_that_it_has_alone": "an expert does none of several tasks by itself"
    }

    def __init__(self, tasks: Mapping[str, Task], weights: Mapping[str, float] | None = None):
        if not tasks:
            raise ArgumentError("tasks", "needs at least one task", tasks, 'tasks={"click": mb.tasks.MultiLabel()}')
        for name, weight in (weights or {}).items():
            if name not in tasks:
                raise ArgumentError(f"weights.{name}", "no task is called so", weight, did_you_mean(name, tasks))
            if not weight >= 0:
                raise ArgumentError(f"weights.{name}", "needs a number of at least 0", weight, f"{name}: 1.0")
        self.tasks, self.weights = dict(tasks), {name: (weights or {}).get(name, 1.0) for name in tasks}

    def for_model(self, model: nn.Module) -> "MultiTask":
        """The task as it is: no model with several outputs says how to read them."""
        return self

    def for_data(self, target: Any) -> "MultiTask":
        """Each task for its targets."""
        self._check_names("data", target)
        task = copy.copy(self)
        task.tasks = {}
        for name, each in self.tasks.items():
            task.tasks[name] = each.for_data(target[name][each.has_target(target[name])])
        return task

    def check(self, output: Any, target: Any) -> None:
        """Outputs and targets have the tasks' names, and fit each other."""
        self._check_names("model", output)
        self._check_names("data", target)
        for name, task in self.tasks.items():
            try:
                task.check(output[name], target[name][task.has_target(target[name])])
            except ArgumentError as error:
                raise error.inside(name) from None

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Any, Any]:
        """Those of each task by its name."""
        samples = {name: task.sample(rows, generator) for name, task in self.tasks.items()}
        return tuple({name: sample[part] for name, sample in samples.items()} for part in (0, 1))  # type: ignore

    def row_losses(self, output: Mapping[str, Any], target: Mapping[str, Tensor]) -> Float[Tensor, " T"]:
        """Σ weight · loss of each row."""
        losses = [self.weights[name] * self._figures(name, "row_losses", output, target, 0.0) for name in self.tasks]
        return torch.stack(losses).sum(0)

    def row_scores(self, output: Mapping[str, Any], target: Mapping[str, Tensor]) -> Float[Tensor, " T"]:
        """The mean score of the tasks that a row has a target of; 0 without any."""
        scores = [self._figures(name, "row_scores", output, target, torch.nan) for name in self.tasks]
        return torch.stack(scores).nanmean(0).nan_to_num()

    def row_metrics(self, output: Mapping[str, Any], target: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The loss, the score and the metrics of each task."""
        metrics: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            rows = task.has_target(target[name])
            metrics[f"{name}_{task.loss_name}"] = self._figures(name, "row_losses", output, target, torch.nan)
            metrics[f"{name}_{task.score_name}"] = self._figures(name, "row_scores", output, target, torch.nan)
            for metric, values in task.row_metrics(output[name][rows], target[name][rows]).items():
                metrics[f"{name}_{metric}"] = _spread(values, rows, torch.nan)
        return metrics

    def predict(self, output: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The columns of each task under `NAME_…`, the first task's `predictions` first."""
        columns = {
            f"{name}_{column}": values
            for name, task in self.tasks.items()
            for column, values in task.predict(output[name]).items()
        }
        return {"predictions": columns[f"{next(iter(self.tasks))}_predictions"], **columns}

    def expert_losses(self, outputs: Any, target: Any) -> Float[Tensor, "T E"]:
        """Refused: an expert of a model with several outputs does none of the tasks by itself."""
        rule = "compares experts by their own loss, and with several tasks an expert has none"
        raise ArgumentError("losses", rule, "multi_task", "losses=[(mb.losses.batch_entropy, 0.01)]")

    def _figures(self, name: str, method: str, output: Any, target: Any, absent: float) -> Float[Tensor, " T"]:
        rows = self.tasks[name].has_target(target[name])
        return _spread(getattr(self.tasks[name], method)(output[name][rows], target[name][rows]), rows, absent)

    def _check_names(self, argument: str, values: Any) -> None:
        if not isinstance(values, Mapping) or not self.tasks.keys() <= values.keys():
            names = sorted(values) if isinstance(values, Mapping) else type(values).__name__
            noun = "outputs" if argument == "model" else "targets"
            fix = "{" + ", ".join(f'"{name}": …' for name in self.tasks) + "}"
            raise ArgumentError(argument, f"needs {noun} by name for {', '.join(self.tasks)}", names, fix)


def _spread(values: Tensor, rows: Tensor, absent: float) -> Float[Tensor, " T"]:
    """Values of some rows as values of all."""
    values = values if values.is_floating_point() else values.float()
    return values.new_full(rows.shape, absent).masked_scatter(rows, values)
