"""The distribution of quantities for each row: a mixture of normal distributions."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.core.precision import at_least_float32
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError
from moebius.layers.mixture import Mixture
from moebius.tasks._normal_mixture import NormalMixture, log_normal
from moebius.tasks._targets import quantities
from moebius.tasks._task import Task


class Gaussian(Task):
    """Each row has a distribution of one quantity or several; the loss is the negative log-likelihood, in nats.

    loss = −log Σ_e w_e Π_d N(y_d | μ_ed, σ_ed),  σ = floor + log(1 + exp(raw scale))

    An expert gives D means, then D raw scales: a distribution of its own. A mixture whose combine is `components` is
    the mixture of these distributions, with the gate's weights: a mixture density network. Any other output (T, 2·D) is
    one normal distribution, also that of a mixture with a weighted sum, which averages means and raw scales. The
    quantities are independent within a component.

    The score is the information gain: the log-likelihood minus that of one normal distribution with mean and standard
    deviation of the training targets. 0 is as good as knowing no inputs, and 1 makes the target e times as likely; it
    does not depend on the targets' unit. The oracle is the expert whose own distribution makes the target most likely;
    no mixture of the same experts can be better.

    Means, intervals and coverage take weights that are scaled to sum to 1; the loss takes them as they are. They differ
    for routers whose rows do not sum to 1, unless the combine renormalises.

    Arguments:
        floor: smallest σ, above 0, in units of the targets. Without one, an expert that sits on one row makes the
            likelihood infinite.

    Shapes: output (T, 2·D), or (T, M, 1 + 2·D) with log w, D means and D raw scales for each of M components; target
        (T,) or (T, D).

    Example:
        >>> task = Gaussian(floor=1e-6)
        >>> output = torch.tensor([[0.0, 0.5413]])  # σ = log(1 + e^0.5413) = 1
        >>> task.row_losses(output, torch.tensor([0.0]))
        tensor([0.9189])
        >>> {name: round(column.item(), 2) for name, column in task.predict(output).items()}
        {'predictions': 0.0, 'scale': 1.0, 'lower': -1.64, 'upper': 1.64}

    Reference: Bishop 1994, Mixture Density Networks; he takes σ = exp(raw scale), whose gradients grow without bound.
    The likelihood is Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, equation 1.3, with scales
    that are learned. Peirolo 2011, Information gain as a score for probabilistic forecasts.
    """

    loss_name: ClassVar[str] = "negative_log_likelihood"
    score_name: ClassVar[str] = "information_gain"
    target_type: ClassVar = "numbers"

    def __init__(self, floor: float | int = 1e-3):
        self.floor = positive_number("floor", floor)
        self._mean: Tensor | None = None
        self._scale: Tensor | None = None

    def for_model(self, model: nn.Module) -> "Gaussian":
        """The task as it is: the axes of an output tell whether it is a mixture.

        Raises:
            ArgumentError: the model mixes classes.
        """
        if isinstance(model, Mixture) and getattr(model.combine, "gives_log_probabilities", False):
            rule = "mixes log-probabilities of classes, and this task mixes densities"
            raise ArgumentError("combine", rule, type(model.combine).__name__, "combine=mb.combine.Components()")
        return self

    def for_data(self, target: Any) -> "Gaussian":
        """The task whose score is the gain over one normal distribution of these targets."""
        values, task = at_least_float32(quantities("data", target)), copy.copy(self)
        if len(values):
            values = values.flatten(1) if values.ndim > 1 else values.unsqueeze(1)
            task._mean, task._scale = values.mean(0), values.std(0, correction=0).clamp(min=self.floor)
        return task

    def count_outputs(self, names: Sequence[str]) -> int:
        """A mean and a raw scale for each quantity."""
        return 2 * len(names)

    def check(self, output: Any, target: Any) -> None:
        """Targets are finite numbers, for each of which the model gives a mean and a scale."""
        values = quantities("data", target)
        width = 2 * (values[:1].numel() if len(values) else 1)
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
        if values.ndim > 2 or shape is None or shape[-1:] != (width + len(shape) - 1,) or len(shape) > 2:
            rule = f"must give (rows, {width}), means and scales, or (rows, experts, {width + 1}) of a mixture of them"
            received = type(output).__name__ if shape is None else tuple(output.shape)
            fix = f"mb.Mixture(gate, [mb.experts.Linear(features, {width}), …], combine=mb.combine.Components())"
            raise ArgumentError("model", rule, received, fix)

    def accepts_expert(self, shape: tuple[int, ...], model_shape: tuple[int, ...]) -> bool:
        """Whether an expert's outputs are means and scales of as many quantities as the model's, or components."""
        return _quantity_count(shape) == _quantity_count(model_shape) != 0

    def sample(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Outputs (rows, 3, 5) of three components and targets (rows, 2)."""
        values = torch.randn(rows, 3, 5, generator=generator)
        log_weights = values[..., :1].log_softmax(1)
        return torch.cat([log_weights, values[..., 1:]], -1), torch.randn(rows, 2, generator=generator)

    def mixture(self, output: Float[Tensor, "T ..."]) -> NormalMixture:
        """The distribution of each row, in float32 at least."""
        output = at_least_float32(output)
        components = F.pad(output.unsqueeze(1), (1, 0)) if output.ndim == 2 else output
        return NormalMixture(components[..., 0], *self._moments(components[..., 1:]))

    def row_losses(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """−log p of each row's target, in nats."""
        mixture = self.mixture(output)
        return -mixture.log_density(_columns(target, mixture.means))

    def row_scores(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Float[Tensor, " T"]:
        """The information gain of each row, in nats; over the standard normal distribution before `for_data`."""
        mixture = self.mixture(output)
        values = _columns(target, mixture.means)
        reference = log_normal(values.unsqueeze(1), *self._reference(mixture.means[:, :1])).squeeze(1)
        return mixture.log_density(values) - reference

    def row_metrics(self, output: Float[Tensor, "T ..."], target: Float[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """Figures of each row, means over its quantities.

        `coverage_90` and `coverage_50` are 1 where the target is in the central 90 (50) % of the distribution, so that
        their means are .9 and .5 for a model that is calibrated; `width_90` is the width of that interval. `r2` and
        `squared_error` are those of the mean.
        """
        mixture = self.mixture(output)
        values = _columns(target, mixture.means)
        error = (values - mixture.mean()).square()
        tail = (mixture.distribution(values) - 0.5).abs()
        _, scale = self._reference(mixture.means[:, :1])
        figures = {
            "r2": 1 - error / scale.squeeze(1).square(),
            "squared_error": error,
            "coverage_50": torch.where(tail.isnan(), tail, (tail <= 0.25).to(tail)),
            "coverage_90": torch.where(tail.isnan(), tail, (tail <= 0.45).to(tail)),
            "width_90": mixture.quantile(0.95) - mixture.quantile(0.05),
        }
        return {name: columns.mean(-1) for name, columns in figures.items()}

    def predict(self, output: Float[Tensor, "T ..."]) -> Mapping[str, Tensor]:
        """`predictions`, the mean; `scale`, the standard deviation; `lower` and `upper`, the central 90 %.

        Each is (T,) where a row has one quantity, else (T, D).
        """
        mixture = self.mixture(output)
        columns = {
            "predictions": mixture.mean(),
            "scale": mixture.standard_deviation(),
            "lower": mixture.quantile(0.05),
            "upper": mixture.quantile(0.95),
        }
        return {name: column.squeeze(1) if column.shape[1] == 1 else column for name, column in columns.items()}

    def expert_losses(self, outputs: Float[Tensor, "T E ..."], target: Float[Tensor, "T ..."]) -> Float[Tensor, "T E"]:
        """−log p of each row's target by each expert's own distribution."""
        if outputs.ndim > 3:  # experts that are mixtures themselves
            return super().expert_losses(outputs, target)
        means, scales = self._moments(at_least_float32(outputs))
        return -log_normal(_columns(target, means).unsqueeze(1), means, scales)

    def _moments(self, outputs: Float[Tensor, "... DD"]) -> tuple[Float[Tensor, "... D"], Float[Tensor, "... D"]]:
        means, raw_scales = outputs.chunk(2, -1)
        return means, self.floor + F.softplus(raw_scales)

    def _reference(self, like: Float[Tensor, "T 1 D"]) -> tuple[Float[Tensor, "T 1 D"], Float[Tensor, "T 1 D"]]:
        """Mean and standard deviation of the training targets, for each row."""
        if self._mean is None or self._scale is None:
            return torch.zeros_like(like), torch.ones_like(like)
        return self._mean.to(like).expand_as(like), self._scale.to(like).expand_as(like)


def _columns(target: Float[Tensor, "T ..."], means: Float[Tensor, "T M D"]) -> Float[Tensor, "T D"]:
    return target.to(means.dtype).view(len(means), means.shape[-1])


def _quantity_count(shape: tuple[int, ...]) -> int:
    """D of an output (2·D,) or (M, 1 + 2·D); 0 of any other."""
    width = shape[-1] + 1 - len(shape) if 1 <= len(shape) <= 2 else 0
    return width // 2 if width > 0 and width % 2 == 0 else 0
