"""The features of a row inside a network: what one of its layers gets."""

import copy
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.core.row_context import call_with_context
from moebius.kit.errors import ArgumentError


class Features(nn.Module):
    """h = what `layer` gets while the network computes a row: the body of a network whose last layer is `layer`.

    The network is shared and stays as it is; only its computation ends before the layer.

    Arguments:
        network: gives what its layer gives, such as a network that ends with a dense layer.
        layer: path of the layer in the network, such as "linear" or "layers.3".

    Shapes: rows of the network (T, …) → (T, F), F numbers for each row.

    Raises:
        ArgumentError: there is no such layer, or it gets more than one vector a row.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> Features(network, layer="2")(torch.zeros(7, 4)).shape
        torch.Size([7, 3])

    Reference: ours.
    """

    def __init__(self, network: nn.Module, layer: str):
        super().__init__()
        paths = [name for name, _ in network.named_modules() if name]
        if layer not in paths:
            rule = f"needs the path of a layer of the {type(network).__name__}"
            raise ArgumentError("layer", rule, layer, f"one of {', '.join(paths[-3:])}")
        self.network, self.layer = network, layer

    def forward(self, x: Float[Tensor, "T ..."]) -> Float[Tensor, "T _"]:
        """The features of each row."""
        features = call_with_context(_without(self.network, self.layer.split(".")), x)
        if features.ndim != 2:
            rule = "needs a layer that gets one vector for each row"
            raise ArgumentError("layer", rule, f"{self.layer}, which gets {tuple(features.shape)}", "a later layer")
        return features

    @staticmethod
    def example(facts: Any) -> dict[str, Any]:
        """Arguments for the checks of `moebius.testing`."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(facts["features"], facts["classes"]), nn.Softmax(-1))
        return {"network": network, "layer": "2"}


def _without(network: nn.Module, path: list[str]) -> nn.Module:
    """The network with its own parts, but for a layer of this path, which leaves its input as it is."""
    first, *rest = path
    shortened = copy.copy(network)
    vars(shortened)["_modules"] = dict(network._modules)
    inner = network.get_submodule(first)
    shortened._modules[first] = _without(inner, rest) if rest else nn.Identity()
    return shortened
