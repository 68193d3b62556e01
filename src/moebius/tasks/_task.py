"""The contract of tasks."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Shaped
from torch import Tensor, nn


class Task:
    """The contract of tasks: what a model's outputs are compared with, and how.

    Training minimises the mean of `row_losses`; losses that compare experts read `expert_losses`; evaluation reports
    the means of both under the task's names, and the columns of `predict`. A task stands in a file of its name and
    knows nothing of mixtures but how a model's outputs are to be read.

    Attributes:
        loss_name: of the loss, in metrics and results.
        score_name: of the score, of which more is better.

    Reference: ours.
    """

    loss_name: ClassVar[str] = "loss"
    score_name: ClassVar[str] = "score"

    def for_model(self, model: nn.Module) -> "Task":
        """The task for this model's outputs, or for an expert's: their scale may be told by the model alone."""
        return self

    def row_losses(self, output: Tensor, target: Tensor) -> Float[Tensor, " T"]:
        """The loss of each row, in float32 at least."""
        raise TypeError(f"{type(self).__name__} is a task without a method row_losses")

    def row_scores(self, output: Tensor, target: Tensor) -> Shaped[Tensor, " T"]:
        """The score of each row; more is better."""
        raise TypeError(f"{type(self).__name__} is a task without a method row_scores")

    def predict(self, output: Tensor) -> Mapping[str, Tensor]:
        """What the output says of each row: name → a column of T entries."""
        raise TypeError(f"{type(self).__name__} is a task without a method predict")

    def expert_losses(self, outputs: Float[Tensor, "T E ..."], target: Tensor) -> Float[Tensor, "T E"]:
        """Each expert's own loss on each row, in float32 at least; its outputs are of the model's shape."""
        raise TypeError(f"{type(self).__name__} is a task without a method expert_losses")
