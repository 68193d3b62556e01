"""One class for each position of a row: tokens of a sequence, pixels of an image."""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.layers.mixture import Mixture
from moebius.tasks._targets import class_indices
from moebius.tasks._task import ABSENT, Task

CHANNELS = ("last", "first")
# Of the metric that has a table of positions and classes.
MOST_CLASSES = 256


class Tokens(Task):
    """Each position of a row is of one of C classes; a row's loss is the mean cross-entropy of its positions, in nats.

    The score is the share of its positions that are right. Positions whose target is `ignore_index` (padding, pixels
    without a label) count nowhere; a row of such positions alone has a loss of 0. The metric `mean_iou` is the mean
    intersection over union of the classes that a row has or is predicted to have. Every row counts the same, however
    many positions it has: the mean over all positions of a batch differs from the mean over rows.

    Arguments:
        ignore_index: of positions without a target.
        channels: axis of the classes in outputs: "last", (T, *positions, C), or "first", (T, C, *positions).

    Shapes: target (T, *positions), whole numbers.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]]])
        >>> Tokens().row_scores(logits, torch.tensor([[0, 0, -100]]))
        tensor([0.5000])

    Reference: ours.
    """

    loss_name: ClassVar[str] = "cross_entropy"
    score_name: ClassVar[str] = "token_accuracy"
    target_type: ClassVar = "classes"

    def __init__(self, ignore_index: int = ABSENT, channels: str = "last"):
        if channels not in CHANNELS:
            raise ArgumentError("channels", "needs last or first", channels, did_you_mean(channels, CHANNELS))
        self.ignore_index, self.channels = ignore_index, channels
        self.outputs: Literal["logits", "log-probabilities"] = "logits"

    def for_model(self, model: nn.Module) -> "Tokens":
        """The task for this model's outputs: log-probabilities where its combine declares them."""
        task = copy.copy(self)
        gives_logarithms = isinstance(model, Mixture) and getattr(model.combine, "gives_log_probabilities", False)
        task.outputs = "log-probabilities" if gives_logarithms else "logits"
        return task

    def check(self, output: Any, target: Any) -> None:
        """Targets are classes at the positions for which the model gives scores."""
        labels = class_indices("data", target)
        scores = self._by_class(output) if isinstance(output, Tensor) and output.ndim == labels.ndim + 1 else None
        if labels.ndim < 2 or scores is None or scores.shape[1:-1] != labels.shape[1:]:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            rule = f"must give scores for each of a row's positions {tuple(labels.shape[1:])} and class"
            raise ArgumentError("model", rule, shape, f"task=mb.tasks.Tokens(channels={self._other!r})")
        labels = labels[labels != self.ignore_index]
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[-1]:
            wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
            rule = f"needs labels 0 … {scores.shape[-1] - 1}, or {self.ignore_index} for none"
            raise ArgumentError("data", rule, wrong, f"task=mb.tasks.Tokens(ignore_index={wrong})")

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Outputs (rows, 5, 4), or (rows, 4, 5), and targets (rows, 5), some of which are ignored."""
        scores, target = (
            torch.randn(rows, 5, 4, generator=generator),
            torch.randint(0, 4, (rows, 5), generator=generator),
        )
        target[:, 3] = self.ignore_index
        return scores if self.channels == "last" else scores.movedim(-1, 1), target

    def has_target(self, target: Int[Tensor, "T ..."]) -> Bool[Tensor, " T"]:
        """Which rows have a position with a target."""
        return (target != self.ignore_index).flatten(1).any(1)

    def row_losses(self, output: Float[Tensor, "T ..."], target: Int[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """The mean cross-entropy of each row's positions."""
        scores, labels = at_least_float32(self._by_class(output)).flatten(0, -2), target.flatten()
        function = F.cross_entropy if self.outputs == "logits" else F.nll_loss
        losses = function(scores, labels, reduction="none", ignore_index=self.ignore_index).view_as(target)
        return self._row_means(losses, target)

    def row_scores(self, output: Float[Tensor, "T ..."], target: Int[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """The share of each row's positions that are right; 0 without any."""
        return self._row_means((self._by_class(output).argmax(-1) == target).float(), target)

    def row_metrics(self, output: Float[Tensor, "T ..."], target: Int[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """`mean_iou`: intersection over union of each class that a row has or is predicted to have, and their mean.

        Left out above 256 classes, whose tables would be large.
        """
        scores = self._by_class(output)
        if scores.shape[-1] > MOST_CLASSES:
            return {}
        mask = (target != self.ignore_index).flatten(1).unsqueeze(-1)
        classes = torch.arange(scores.shape[-1], device=scores.device)
        is_true = (target.flatten(1).unsqueeze(-1) == classes) & mask
        is_predicted = (scores.argmax(-1).flatten(1).unsqueeze(-1) == classes) & mask
        union = (is_true | is_predicted).sum(1)
        ratios = (is_true & is_predicted).sum(1) / union.clamp(min=1)
        present = (union > 0).sum(1)
        means = ratios.sum(1) / present.clamp(min=1)
        return {"mean_iou": torch.where(present > 0, means, torch.nan)}

    def predict(self, output: Float[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """`predictions`, the most probable class at each position, and `probabilities`, that of this class."""
        scores = self._by_class(output)
        probability, prediction = (scores.softmax(-1) if self.outputs == "logits" else scores.exp()).max(-1)
        return {"predictions": prediction, "probabilities": probability}

    def expert_losses(self, outputs: Float[Tensor, "T E ..."], target: Int[Tensor, "T ..."]) -> Float[Tensor, "T E"]:
        """The loss of each expert's logits on each row; on each position where rows of the mixture are positions."""
        experts = copy.copy(self)
        experts.outputs = "logits"
        if outputs.ndim == 3 and len(outputs) == target.numel():
            experts.channels, target = "last", target.reshape(-1, 1)
            outputs = outputs.unsqueeze(2)
        return super(Tokens, experts).expert_losses(outputs, target)

    @property
    def _other(self) -> str:
        return "first" if self.channels == "last" else "last"

    def _by_class(self, output: Tensor) -> Float[Tensor, "T ... C"]:
        return output if self.channels == "last" else output.movedim(1, -1)

    def _row_means(self, values: Float[Tensor, "T ..."], target: Int[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        mask: Bool[Tensor, "T _"] = (target != self.ignore_index).flatten(1)
        return (values.flatten(1) * mask).sum(1) / mask.sum(1).clamp(min=1)
