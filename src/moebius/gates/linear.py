"""The linear gate."""

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import flatten_features, positive_integer
from moebius.networks import start_layers


class Linear(nn.Module):
    """The scores of a linear map of the row.

    scores = x W_Gᵀ + b

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        experts: E, number of scores per row.
        bias: whether there is a bias b.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, E).

    Raises:
        ArgumentError: features or experts below 1, or an input of another width.

    Example:
        >>> import torch
        >>> Linear(features=64, experts=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])

    Reference: Jacobs, Jordan, Nowlan, Hinton 1991, Adaptive Mixtures of Local Experts, section 1; study 1's `linear`.
    """

    def __init__(self, features: int, experts: int, bias: bool = True, init: str = "torch"):
        super().__init__()
        self.features, self.experts = positive_integer("features", features), positive_integer("experts", experts)
        self.bias = bias
        self.linear = nn.Linear(features, experts, bias)
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The scores of each row."""
        return self.linear(flatten_features(x, self.features))
