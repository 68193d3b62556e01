"""The combine that divides what another one gives by a temperature."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from moebius.combine.weighted_sum import WeightedSum
from moebius.core.routing import Routing
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError


class Tempered:
    """y = c(values, routing) / τ: the outputs of another combine, divided by a temperature.

    A temperature above 1 makes a classifier less certain of its classes and below 1 more certain; their order stays.
    Where c gives log-probabilities, the result is log_softmax(c / τ), which are such again.

    Arguments:
        combine: c, another combine; None for the weighted sum.
        temperature: τ, above 0.

    Arguments of the call:
        values: the experts' outputs, (T, E, C) without a selection, else (A, C).
        routing: the weights.

    Returns: (T, C).

    Raises:
        ArgumentError: a temperature not above 0, or a combine that cannot be called.

    Example:
        >>> import torch
        >>> from moebius.routers import Soft
        >>> routing = Soft()(torch.zeros(1, 2))
        >>> Tempered(temperature=2.0)(torch.tensor([[[2.0, 0.0], [4.0, 2.0]]]), routing)
        tensor([[1.5000, 0.5000]])

    Reference: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599,
    equation 9.
    """

    def __init__(self, combine: Any = None, temperature: float | int = 1.0):
        self.combine = WeightedSum() if combine is None else combine
        if not callable(self.combine):
            rule = "needs a combine, (outputs, routing) → output"
            raise ArgumentError("combine", rule, combine, "combine=mb.LogMixture()")
        self.temperature = positive_number("temperature", temperature)
        self.gives_log_probabilities = bool(getattr(self.combine, "gives_log_probabilities", False))

    def __call__(self, values: Float[Tensor, "..."], routing: Routing) -> Float[Tensor, "T ..."]:
        """Merge the outputs of each row's experts."""
        y = self.combine(values, routing) / self.temperature
        return y.log_softmax(-1) if self.gives_log_probabilities else y
