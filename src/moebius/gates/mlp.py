"""The gate with hidden dense layers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.networks import Dense, start_layers


class MLP(nn.Module):
    """The scores of a small dense network of the row.

    scores = W_n a(… a(W_1 x + b_1) …) + b_n

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        experts: E, number of scores per row.
        hidden: widths of the hidden layers, at least one.
        activation: a, one of none, relu, elu, tanh, gelu, silu.
        dropout: probability that a value after an activation is set to 0 in training; other values are scaled up.
        bias: whether the layers have biases b.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, E).

    Raises:
        ArgumentError: a width below 1, no width, an unknown activation, a dropout that is not from 0 to below 1, or an
            input of another width.

    Example:
        >>> import torch
        >>> MLP(features=64, experts=2, hidden=[16])(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])

    Reference: Jordan, Jacobs 1994, Hierarchical Mixtures of Experts and the EM Algorithm, for gates as networks; the
    defaults are study 1's `hidden` and study 2's `dense`.
    """

    def __init__(
        self,
        features: int,
        experts: int,
        hidden: Sequence[int] = (64,),
        activation: str = "relu",
        dropout: float | int = 0.0,
        bias: bool = True,
        init: str = "torch",
    ):
        super().__init__()
        self.features, self.experts = positive_integer("features", features), positive_integer("experts", experts)
        self.hidden, self.activation = positive_widths("hidden", hidden), activation
        self.network = Dense(features, self.hidden, experts, activation, dropout, bias=bias)
        self.dropout, self.bias = self.network.dropout, bias
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The scores of each row."""
        return self.network(x)
