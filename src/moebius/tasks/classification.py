"""One class for each row."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.experts.adapter import Adapter
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture
from moebius.tasks._targets import check_classes, class_indices
from moebius.tasks._task import Task


class Classification(Task):
    """Each row is of one of C classes; the loss is the cross-entropy in nats, the score is 1 where the class is right.

    A model's outputs (T, C) are logits, unless it says otherwise: a mixture whose combine declares
    `gives_log_probabilities` (`mb.LogMixture`) gives log-probabilities, and an `Adapter` whose activation is softmax or
    sigmoid gives probabilities.

    Arguments:
        weights: factor of the loss of the rows of each class, C numbers of at least 0; "balanced" takes T / (C · T_c)
            of the training rows, whose mean over these is 1; None for 1.
        smoothing: ε, from 0 to below 1: the loss is that of a target that has 1 − ε + ε/C for the row's class, and ε/C
            for any other.

    Example:
        >>> import torch
        >>> task = Classification()
        >>> task.row_scores(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        tensor([ True, False])

    Reference: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2016, Rethinking the Inception Architecture for Computer Vision,
    section 7, for the smoothing.
    """

    loss_name: ClassVar[str] = "cross_entropy"
    score_name: ClassVar[str] = "accuracy"
    target_type: ClassVar = "classes"

    def __init__(self, weights: Sequence[float] | Literal["balanced"] | None = None, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ArgumentError("smoothing", "needs a number from 0 to below 1", smoothing, "smoothing: 0.1")
        if weights is not None and weights != "balanced" and any(isinstance(w, str) or w < 0 for w in weights):
            rule = "needs a number of at least 0 for each class, or balanced"
            raise ArgumentError("weights", rule, weights, "weights: balanced")
        self.weights, self.smoothing = weights, smoothing
        self.outputs: Literal["logits", "log-probabilities", "probabilities"] = "logits"
        self._weight_C = None if weights is None or weights == "balanced" else torch.tensor([*map(float, weights)])

    def for_model(self, model: nn.Module) -> "Classification":
        """The task for this model's outputs."""
        task = copy.copy(self)
        task.outputs = "logits"
        if isinstance(model, Mixture) and getattr(model.combine, "gives_log_probabilities", False):
            task.outputs = "log-probabilities"
        elif isinstance(model, Adapter) and model.activation in ("softmax", "sigmoid"):
            task.outputs = "probabilities"
        return task

    def for_data(self, target: Int[Tensor, " T"]) -> "Classification":
        """The task with the weights of these rows' classes."""
        if self.weights != "balanced":
            return self
        task, counts = copy.copy(self), class_indices("data", target).bincount()
        task._weight_C = len(target) / (len(counts) * counts.clamp(min=1)).float()
        return task

    def check(self, output: Any, target: Any) -> None:
        """Targets are whole numbers (T,) from 0 to below the number of the model's outputs, (T, C)."""
        if not isinstance(output, Tensor) or output.ndim != 2:
            rule = "must give one tensor of class scores, (rows, classes)"
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ArgumentError("model", rule, shape, "nn.Sequential(model, head), whose head gives (rows, classes)")
        check_classes("data", class_indices("data", target), output.shape[1])
        if self._weight_C is not None and len(self._weight_C) > output.shape[1]:
            rule = f"needs one for each of {output.shape[1]} classes"
            raise ArgumentError("weights", rule, len(self._weight_C), "weights: balanced")

    def row_losses(self, output: Float[Tensor, "T C"], target: Int[Tensor, " T"]) -> Float[Tensor, " T"]:
        """−ln of the probability of each row's class, weighted and smoothed, in float32 at least."""
        return self._losses(at_least_float32(output), target, self.outputs)

    def row_scores(self, output: Float[Tensor, "T C"], target: Int[Tensor, " T"]) -> Bool[Tensor, " T"]:
        """Whether the class with the largest output is the row's."""
        return output.argmax(-1) == target

    def probabilities(self, output: Float[Tensor, "T C"]) -> Float[Tensor, "T C"]:
        """The probability of each class."""
        if self.outputs == "logits":
            return output.softmax(-1)
        return output.exp() if self.outputs == "log-probabilities" else output

    def predict(self, output: Float[Tensor, "T C"]) -> Mapping[str, Tensor]:
        """`predictions`, the most probable class of each row, and `probabilities`, that of this class."""
        probability, prediction = self.probabilities(output).max(-1)
        return {"predictions": prediction, "probabilities": probability}

    def expert_losses(self, outputs: Float[Tensor, "T E C"], target: Int[Tensor, " T"]) -> Float[Tensor, "T E"]:
        """The loss of each expert's logits on each row, in float32 at least."""
        by_class = at_least_float32(outputs).transpose(1, 2)
        return self._losses(by_class, target.unsqueeze(1).expand(outputs.shape[:2]), "logits")

    def _losses(self, output: Float[Tensor, "T C ..."], target: Int[Tensor, "T ..."], outputs: str) -> Tensor:
        weight = None if self._weight_C is None else self._weight_C.to(output)
        if weight is not None and len(weight) < output.shape[1]:  # classes without a training row
            weight = F.pad(weight, (0, output.shape[1] - len(weight)), value=1.0)
        if outputs == "logits":
            return F.cross_entropy(output, target, weight, reduction="none", label_smoothing=self.smoothing)
        logarithms = output if outputs == "log-probabilities" else output.log()
        losses = F.nll_loss(logarithms, target, weight, reduction="none")
        if not self.smoothing:
            return losses
        weighted = logarithms if weight is None else logarithms * weight
        return (1 - self.smoothing) * losses - self.smoothing * weighted.mean(1)
