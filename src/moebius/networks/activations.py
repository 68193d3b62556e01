"""The activation functions of networks, by name."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from moebius.kit.errors import ArgumentError

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "none": lambda x: x,
    "relu": torch.relu,
    "elu": F.elu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}
# Monotone functions, which commute with the maximum: max(a(x), a(y)) = a(max(x, y)).
MONOTONE = ("none", "relu", "elu", "tanh")


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


def activate_map(x: Float[Tensor, "*shape"], name: str) -> Float[Tensor, "*shape"]:
    """The activation `name` of a map, which it may overwrite.

    Use it for the output of a convolution or a pooling: neither reads its output again in the backward pass, and the
    gradients of relu and elu follow from their values, so that no second map is needed in memory.

    Example:
        >>> activate_map(torch.tensor([-1.0, 2.0]), "elu")
        tensor([-0.6321,  2.0000])
    """
    if name == "relu":
        return x.relu_()
    if name == "elu":
        return F.elu(x, inplace=True)
    return ACTIVATIONS[name](x)
