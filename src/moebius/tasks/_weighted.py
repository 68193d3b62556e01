"""Another task with a weight for each row."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from moebius.tasks._task import Task


class Weighted(Task):
    """The loss of each row times its weight; scores and metrics are those of the task.

    Targets are {"target": …, "weight": (T,)}, with weights of at least 0.

    Arguments:
        task: what is learned.

    Reference: ours.
    """

    def __init__(self, task: Task):
        self.task = task
        self.loss_name, self.score_name = task.loss_name, task.score_name  # type: ignore[misc]

    def for_model(self, model: nn.Module) -> "Weighted":
        """The weighted task for this model's outputs."""
        return Weighted(self.task.for_model(model))

    def for_data(self, target: Mapping[str, Any]) -> "Weighted":
        """The weighted task for these rows."""
        return Weighted(self.task.for_data(target["target"]))

    def check(self, output: Any, target: Mapping[str, Any]) -> None:
        """As the task does."""
        self.task.check(output, target["target"])

    def row_losses(self, output: Any, target: Mapping[str, Any]) -> Float[Tensor, " T"]:
        """The task's loss of each row, times its weight."""
        losses = self.task.row_losses(output, target["target"])
        return losses * target["weight"].to(losses.dtype)

    def row_scores(self, output: Any, target: Mapping[str, Any]) -> Shaped[Tensor, " T"]:
        """The task's scores."""
        return self.task.row_scores(output, target["target"])

    def row_metrics(self, output: Any, target: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """The task's metrics."""
        return self.task.row_metrics(output, target["target"])

    def predict(self, output: Any) -> Mapping[str, Tensor]:
        """The task's columns."""
        return self.task.predict(output)

    def accepts_expert(self, shape: tuple[int, ...], model_shape: tuple[int, ...]) -> bool:
        """As the task does."""
        return self.task.accepts_expert(shape, model_shape)

    def expert_losses(self, outputs: Float[Tensor, "T E ..."], target: Mapping[str, Any]) -> Float[Tensor, "T E"]:
        """The task's losses of each expert, times the row's weight."""
        losses = self.task.expert_losses(outputs, target["target"])
        return losses * target["weight"].to(losses.dtype).unsqueeze(1)


def weights_of(values: Any) -> Float[Tensor, " T"]:
    """Weights scaled to a mean of 1."""
    weights = torch.as_tensor(values, dtype=torch.float64)
    return weights / weights.mean()
