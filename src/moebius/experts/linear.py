"""The linear expert."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import flatten_features, positive_integer
from moebius.networks import start_layers


class Linear(nn.Module):
    """The logits of a linear map of the row: y = x Wᵀ + b.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        classes: C, number of outputs.
        bias: whether there is a bias b.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, C).

    Raises:
        ArgumentError: features or classes below 1, or an input of another width.

    Example:
        >>> import torch
        >>> Linear(features=64, classes=10)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Reference: ours (multinomial logistic regression); study 1's expert.
    """

    def __init__(self, features: int, classes: int, bias: bool = True, init: str = "torch"):
        super().__init__()
        self.features, self.classes = positive_integer("features", features), positive_integer("classes", classes)
        self.linear = nn.Linear(features, classes, bias)
        self.bias, self.init = bias, start_layers(self, init)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """Logits of each row."""
        return self.rowwise(x, lambda linear, x: linear(x))

    def rowwise(self, x: Tensor, layer: Callable[[nn.Linear, Tensor], Tensor]) -> Tensor:
        """The output, with `layer(linear, x)` for the dense layer, by which executions run all experts at once."""
        return layer(self.linear, flatten_features(x, self.features))
