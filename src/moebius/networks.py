"""The network bodies that gates and experts share: dense layers, and convolutions under dense layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.arguments import flatten_features, positive, widths
from moebius.errors import ArgumentError

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}
# A function that never falls swaps places with the maximum: max(a(x), a(y)) = a(max(x, y)).
NEVER_FALLING = ("none", "relu", "elu", "tanh")


def activation_named(name: str, allowed: Sequence[str] = tuple(ACTIVATIONS)) -> Activation:
    """The activation function called `name`.

    Raises:
        ArgumentError: it is not one of `allowed`.

    Example:
        >>> activation_named("relu")(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    if name not in allowed:
        raise ArgumentError("activation", f"needs one of {', '.join(allowed)}", name, "activation: relu")
    return ACTIVATIONS[name]


class Dense(nn.Module):
    """Dense layers with an activation between them and none after the last: y = W_n a(… a(W_1 x + b_1) …) + b_n.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        hidden: widths of the layers between; none makes the map linear.
        outputs: width of the last layer.
        activation: a, one of `ACTIVATIONS`.
    """

    def __init__(self, features: int, hidden: Sequence[int], outputs: int, activation: str = "relu"):
        super().__init__()
        self.features, self.activation = features, activation
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in pairwise([features, *hidden, outputs])
        )
        activation_named(activation)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """The last layer's output for each row."""
        activate = ACTIVATIONS[self.activation]
        x = flatten_features(x, self.features)
        for layer in self.layers[:-1]:
            x = activate(layer(x))
        return self.layers[-1](x)

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers, by their type."""
        return cast(list[nn.Linear], list(self.layers))

    def extra_repr(self) -> str:
        """What tells two equal shapes apart."""
        return f"activation={self.activation}"


class ConvNet(nn.Module):
    """Blocks of a 3×3 convolution that keeps the size, 2×2 max-pooling and an activation; then dense layers.

    The activation comes after the pooling: for one that never falls this is the same function, gradients included,
    on a quarter of the values. The last map is flattened position by position, all channels of one after all of
    another, which for channels-last memory is no copy.

    Arguments:
        channels: of the input images.
        size: their height and width, in pixels; each block halves it (rounded down).
        filters: output channels of each block, at least one block.
        hidden: widths of the dense relu layers, none allowed.
        outputs: width of the last dense layer, which has no activation.
        activation: of the blocks, one of `NEVER_FALLING`.

    Shapes: x (T, channels, size, size) → (T, outputs).

    Raises:
        ArgumentError: a value out of range, an image too small for so many blocks, or an input of another shape.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        filters: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
        activation: str,
    ):
        super().__init__()
        self.channels, self.size, self.activation = positive("channels", channels), positive("size", size), activation
        filters, hidden = widths("filters", filters), widths("hidden", hidden) if hidden else ()
        activation_named(activation, NEVER_FALLING)
        last_size = size >> len(filters)
        if last_size < 1:
            most = size.bit_length() - 1
            rule = f"an image {size} pixels wide can be halved {most} times, by as many blocks"
            raise ArgumentError("filters", rule, list(filters), f"filters: {list(filters[:most])}" if most else None)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise([channels, *filters])
        )
        self.dense = Dense(filters[-1] * last_size**2, hidden, outputs)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """The last dense layer's output for each image."""
        if x.shape[1:] != (self.channels, self.size, self.size):
            rule = f"this network was built for images of shape {(self.channels, self.size, self.size)}"
            raise ArgumentError("x", rule, tuple(x.shape), f"channels={x.shape[1]}, size={x.shape[-1]}")
        for convolution in self.convolutions:
            x = F.max_pool2d(convolution(x), 2)
            # In place: nothing reads the pooled values themselves again, and a map less is kept in memory.
            x = x.relu_() if self.activation == "relu" else ACTIVATIONS[self.activation](x)
        return self.dense(x.permute(0, 2, 3, 1).flatten(1))

    def extra_repr(self) -> str:
        """What tells two equal shapes apart."""
        return f"channels={self.channels}, size={self.size}, activation={self.activation}"
