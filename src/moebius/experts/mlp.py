"""The expert with hidden dense layers."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.arguments import flatten_features, positive, widths
from moebius.experts._stacking import each_on_its_own, shared_rows
from moebius.networks import ACTIVATIONS, Dense


class MLP(nn.Module):
    """Logits are a small dense network of the row: y = W_n a(… a(W_1 x + b_1) …) + b_n.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        classes: C, number of outputs.
        hidden: widths of the layers between, at least one.
        activation: a, one of none, relu, elu, tanh, gelu, silu.
        dropout: share of the values that is set to 0 after each activation while training, the others scaled up.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, C).

    Raises:
        ArgumentError: a width below 1, no width, an unknown activation, a share that is not from 0 to below 1, or an
            input of another width.

    Example:
        >>> MLP(features=64, classes=10, hidden=[16])(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Reference: ours (the multilayer perceptron).
    """

    def __init__(
        self,
        features: int,
        classes: int,
        hidden: Sequence[int] = (64,),
        activation: str = "relu",
        dropout: float | int = 0.0,
    ):
        super().__init__()
        self.features, self.classes = positive("features", features), positive("classes", classes)
        self.hidden, self.activation = widths("hidden", hidden), activation
        self.network = Dense(features, self.hidden, classes, activation, dropout)
        self.dropout = self.network.dropout

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """Logits of each row."""
        return self.network(x)

    def rowwise(self, x: Tensor, layer: Callable[[nn.Linear, Tensor], Tensor]) -> Tensor:
        """The same, with `layer(linear, x)` for the dense layers: executions compute those of all experts at once."""
        return self.network.rowwise(x, layer)

    @staticmethod
    def stacked(experts: Sequence["MLP"], x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E ... C"]:
        """The outputs of equal experts on the same rows: the first layers as one product."""
        networks = [expert.network for expert in experts]
        first = networks[0]
        # Equal shapes are not yet equal functions, and dropout draws for one expert after another.
        if any(network.activation != first.activation or network.drops for network in networks):
            return torch.stack([expert(x) for expert in experts], 1)
        activate = ACTIVATIONS[first.activation]
        layers = list(zip(*(network.linears for network in networks), strict=True))
        values = shared_rows(layers[0], flatten_features(x, first.features))
        for layer in layers[1:]:
            values = each_on_its_own(layer, activate(values))
        return values
