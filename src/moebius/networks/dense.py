"""Dense layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import flatten_features
from moebius.kit.errors import ArgumentError
from moebius.networks._dropout import dropout_rate
from moebius.networks.activations import ACTIVATIONS, activation_named


class Dense(nn.Module):
    """Dense layers with an activation between them and none after the last: y = W_n a(… a(W_1 x + b_1) …) + b_n.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        hidden: widths of the hidden layers; empty for a linear map.
        outputs: width of the last layer.
        activation: a, one of `ACTIVATIONS`.
        dropout: probability that a value after an activation is set to 0 in training; other values are scaled up.
        residual: whether each hidden layer but the first adds its input: h ← h + a(W h + b). Their widths are equal.
        bias: whether the layers have biases b.

    Raises:
        ArgumentError: an unknown activation, a dropout that is not from 0 to below 1, widths that differ with residual
            layers, or an input of another width.
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int],
        outputs: int,
        activation: str = "relu",
        dropout: float | int = 0.0,
        residual: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        if residual and len(set(hidden)) > 1:
            rule = "needs equal widths for residual layers, which add their input to their output"
            raise ArgumentError("hidden", rule, list(hidden), f"hidden: {[max(hidden)] * len(hidden)}")
        self.residual = residual
        self.features, self.hidden, self.outputs, self.activation = features, tuple(hidden), outputs, activation
        self.dropout = dropout_rate("dropout", dropout)
        self.layers = nn.ModuleList(
            nn.Linear(before, after, bias) for before, after in pairwise([features, *hidden, outputs])
        )
        self.drop = nn.Dropout(self.dropout)
        activation_named(activation)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """The last layer's output for each row."""
        return self.rowwise(x, lambda linear, x: linear(x))

    def rowwise(self, x: Tensor, layer: Callable[[Any, Tensor], Tensor]) -> Tensor:
        """The output, with `layer(linear, x)` for each layer, by which those of several networks run at once."""
        activate = ACTIVATIONS[self.activation]
        x = flatten_features(x, self.features)
        for place, linear in enumerate(self.linears[:-1]):
            change = self.drop(activate(layer(linear, x)))
            x = x + change if self.residual and place else change
        return layer(self.linears[-1], x)

    @property
    def linears(self) -> list[nn.Module]:
        """The layers: nn.Linear, or modules that replace them."""
        return list(self.layers)

    def extra_repr(self) -> str:
        """The arguments that the shapes of the parameters do not determine."""
        return f"activation={self.activation}" + (", residual=True" if self.residual else "")
