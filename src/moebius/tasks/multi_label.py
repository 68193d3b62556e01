"""Any number of L labels for each row."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.kit.errors import ArgumentError
from moebius.tasks._targets import check_shape, quantities
from moebius.tasks._task import Task


class MultiLabel(Task):
    """Each row has any number of L labels; the loss is the mean binary cross-entropy of its labels, in nats.

    The score is the share of a row's labels that are right, at a probability of one half; the metric `exact_match` is 1
    where all are. A label that is NaN is not known and counts nowhere; a row without known labels has a loss of 0.

    Arguments:
        positive_weight: factor of the loss of labels that a row has, above 0.

    Shapes: output logits (T, L); target (T, L): 1 for a label that the row has, 0 for another, NaN for unknown.

    Example:
        >>> import torch
        >>> MultiLabel().row_scores(torch.tensor([[3.0, -2.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([0.6667])

    Reference: ours.
    """

    loss_name: ClassVar[str] = "binary_cross_entropy"
    score_name: ClassVar[str] = "label_accuracy"
    target_type: ClassVar = "labels"

    def __init__(self, positive_weight: float = 1.0):
        if not positive_weight > 0:
            raise ArgumentError("positive_weight", "needs a number above 0", positive_weight, "positive_weight: 1.0")
        self.positive_weight = positive_weight

    def check(self, output: Any, target: Any) -> None:
        """Targets are 0, 1 or NaN, one for each of the model's outputs."""
        values = quantities("data", target, missing=True)
        if values.ndim != 2 or bool(((values != 0) & (values != 1) & ~values.isnan()).any()):
            rule = "needs targets (rows, labels) of 0 and 1; NaN for unknown"
            fix = "F.one_hot(labels)    # for one class a row; or task='classification'"
            raise ArgumentError("data", rule, tuple(values.shape), fix)
        check_shape(output, values)

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Outputs and targets (rows, 3)."""
        target = torch.randint(0, 2, (rows, 3), generator=generator).float()
        return torch.randn(rows, 3, generator=generator), target

    def has_target(self, target: Shaped[Tensor, "T L"]) -> Bool[Tensor, " T"]:
        """Which rows have a label that is known."""
        return ~target.isnan().all(1)

    def row_losses(self, output: Float[Tensor, "T L"], target: Shaped[Tensor, "T L"]) -> Float[Tensor, " T"]:
        """The mean binary cross-entropy of each row's known labels."""
        output, target, mask = self._parts(output, target)
        weight = output.new_tensor(self.positive_weight)
        losses = F.binary_cross_entropy_with_logits(output, target, reduction="none", pos_weight=weight)
        return (losses * mask).sum(1) / mask.sum(1).clamp(min=1)

    def row_scores(self, output: Float[Tensor, "T L"], target: Shaped[Tensor, "T L"]) -> Float[Tensor, " T"]:
        """The share of each row's known labels that are right; 1 without any."""
        output, target, mask = self._parts(output, target)
        errors = ((output > 0) != (target > 0)) & mask
        return 1 - errors.sum(1) / mask.sum(1).clamp(min=1)

    def row_metrics(self, output: Float[Tensor, "T L"], target: Shaped[Tensor, "T L"]) -> Mapping[str, Tensor]:
        """`exact_match`: whether all known labels are right."""
        return {"exact_match": (self.row_scores(output, target) == 1).float()}

    def predict(self, output: Float[Tensor, "T L"]) -> Mapping[str, Tensor]:
        """`predictions`, whether each label is probable, and `probabilities`, (T, L)."""
        return {"predictions": output > 0, "probabilities": output.sigmoid()}

    @staticmethod
    def _parts(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output = at_least_float32(output)
        return output, target.to(output.dtype).nan_to_num(), ~target.isnan()
