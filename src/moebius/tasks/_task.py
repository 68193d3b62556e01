"""The contract of tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

# The target of a row that has none, where targets are whole numbers; torch's default for `ignore_index`.
ABSENT = -100


class Task:
    """The contract of tasks: what a model's outputs are compared with, and how.

    Training minimises the mean of `row_losses`; losses that compare experts read `expert_losses`; evaluation reports
    the means of both, and of `row_metrics`, under the task's names, and the columns of `predict`. A gate that picks
    the expert with the best score for each row is the oracle. A task stands in a file of its name and knows nothing of
    mixtures but how a model's outputs are to be read.

    Attributes:
        loss_name: of the loss, in metrics and results; not "loss", which is the sum of all that is minimised.
        score_name: of the score, of which more is better.
        target_type: what a column of a table, or a set of images, has to hold: "classes", "numbers", "labels" (two
            classes), or "any".

    Reference: ours.
    """

    loss_name: ClassVar[str] = "row_loss"
    score_name: ClassVar[str] = "score"
    target_type: ClassVar[Literal["classes", "numbers", "labels", "any"]] = "any"

    def for_model(self, model: nn.Module) -> "Task":
        """The task for this model's outputs, or for an expert's: their scale may be told by the model alone."""
        return self

    def for_data(self, target: Any) -> "Task":
        """The task for training rows with these targets: a score may be relative to them.

        Raises:
            ArgumentError: they are no targets of this task.
        """
        return self

    def count_outputs(self, names: Sequence[str]) -> Any:
        """The number of a model's outputs for a row, or for a position of it.

        Arguments:
            names: of the classes, or of the quantities.
        """
        return len(names)

    def check(self, output: Any, target: Any) -> None:
        """Whether targets are of this task and fit a model's outputs.

        Arguments:
            output: for one row or more.
            target: of all rows of a split.

        Raises:
            ArgumentError: they do not; the fix destroys no data.
        """

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Any, Any]:
        """Random outputs and targets of so many rows, in the task's form: what conformance tests try it with."""
        return torch.randn(rows, 4, generator=generator), torch.randint(0, 4, (rows,), generator=generator)

    def has_target(self, target: Any) -> Bool[Tensor, " T"]:
        """Which rows have a target: NaN, or −100 among whole numbers, is none."""
        absent = target.isnan() if target.is_floating_point() else target == ABSENT
        return ~(absent if absent.ndim == 1 else absent.flatten(1).any(1))

    def row_losses(self, output: Any, target: Any) -> Float[Tensor, " T"]:
        """The loss of each row, in float32 at least."""
        raise TypeError(f"{type(self).__name__} is a task without a method row_losses")

    def row_scores(self, output: Any, target: Any) -> Shaped[Tensor, " T"]:
        """The score of each row; more is better."""
        raise TypeError(f"{type(self).__name__} is a task without a method row_scores")

    def row_metrics(self, output: Any, target: Any) -> Mapping[str, Shaped[Tensor, " T"]]:
        """Further figures of each row, by name; NaN for a row that has none. Evaluation reports their means."""
        return {}

    def predict(self, output: Any) -> Mapping[str, Tensor]:
        """What the output says of each row: name → a column of T entries, `predictions` first."""
        raise TypeError(f"{type(self).__name__} is a task without a method predict")

    def accepts_expert(self, shape: tuple[int, ...], model_shape: tuple[int, ...]) -> bool:
        """Whether an expert's outputs are read as a model's are, so that it does the whole task by itself.

        Arguments:
            shape: of an expert's output for a row.
            model_shape: of the model's output for a row.
        """
        return shape == model_shape

    def expert_losses(self, outputs: Float[Tensor, "T E ..."], target: Any) -> Float[Tensor, "T E"]:
        """Each expert's own loss on each row, in float32 at least, of outputs that `accepts_expert` accepts."""
        return torch.stack([self.row_losses(output, target) for output in outputs.unbind(1)], 1)
