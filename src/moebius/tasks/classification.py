"""One class for each row."""

import copy
from collections.abc import Mapping
from typing import ClassVar, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.experts.adapter import Adapter
from moebius.layers.mixture import Mixture
from moebius.tasks._task import Task


class Classification(Task):
    """Each row is of one of C classes; the loss is the cross-entropy in nats, the score is 1 where the class is right.

    A model's outputs (T, C) are logits, unless it says otherwise: a mixture whose combine declares
    `gives_log_probabilities` (`mb.LogMixture`) gives log-probabilities, and an `Adapter` whose activation is softmax or
    sigmoid gives probabilities.

    Example:
        >>> import torch
        >>> task = Classification()
        >>> task.row_scores(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        tensor([ True, False])

    Reference: ours.
    """

    loss_name: ClassVar[str] = "cross_entropy"
    score_name: ClassVar[str] = "accuracy"

    def __init__(self):
        self.outputs: Literal["logits", "log-probabilities", "probabilities"] = "logits"

    def for_model(self, model: nn.Module) -> "Classification":
        """The task for this model's outputs."""
        task = copy.copy(self)
        task.outputs = "logits"
        if isinstance(model, Mixture) and getattr(model.combine, "gives_log_probabilities", False):
            task.outputs = "log-probabilities"
        elif isinstance(model, Adapter) and model.activation in ("softmax", "sigmoid"):
            task.outputs = "probabilities"
        return task

    def row_losses(self, output: Float[Tensor, "T C"], target: Int[Tensor, " T"]) -> Float[Tensor, " T"]:
        """−ln of the probability of each row's class, in float32 at least."""
        output = output.float() if output.itemsize < 4 else output
        if self.outputs == "logits":
            return F.cross_entropy(output, target, reduction="none")
        return F.nll_loss(output if self.outputs == "log-probabilities" else output.log(), target, reduction="none")

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
        """The cross-entropy of each expert's logits on each row, in float32 at least."""
        outputs = outputs.float() if outputs.itemsize < 4 else outputs
        return F.cross_entropy(outputs.transpose(1, 2), target.unsqueeze(1).expand(outputs.shape[:2]), reduction="none")
