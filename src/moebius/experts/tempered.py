"""The expert whose outputs are divided by a temperature."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.row_context import call_with_context
from moebius.kit.arguments import positive_number
from moebius.kit.errors import ArgumentError


class Tempered(nn.Module):
    """y = network(x) / τ: a network that is made less certain of its classes (τ above 1), or more.

    The order of its classes stays. `mb.combine.Tempered` does the same to a whole mixture.

    Arguments:
        network: gives logits, such as an `mb.experts.Adapter`.
        temperature: τ, above 0.

    Shapes: those of the network.

    Raises:
        ArgumentError: no module, or a temperature not above 0.

    Example:
        >>> import torch
        >>> Tempered(nn.Identity(), temperature=2.0)(torch.tensor([[2.0, 0.0]]))
        tensor([[1., 0.]])

    Reference: Guo, Pleiss, Sun, Weinberger 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599,
    equation 9.
    """

    def __init__(self, network: nn.Module, temperature: float | int = 1.0):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise ArgumentError("network", "needs a module", type(network).__name__, "network=nn.Linear(64, 10)")
        self.network, self.temperature = network, positive_number("temperature", temperature)

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """The network's outputs, divided."""
        return call_with_context(self.network, x) / self.temperature

    @staticmethod
    def example(facts: Any) -> dict[str, Any]:
        """Arguments for the checks of `moebius.testing`."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"]))
        return {"network": network, "temperature": 2.0}
