"""The activations of feed-forward blocks, plain and gated, with their derivatives."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

GATED = ("swiglu", "geglu")
FEED_FORWARD = ("gelu", "relu2", *GATED)


def feed_forward_activation(name: str, inner: Float[Tensor, "... MH"]) -> Float[Tensor, "... H"]:
    """gelu: x Φ(x) · relu2: max(0, x)² · swiglu, geglu: a(g) ∘ u, with g the first half and a = x σ(x) or x Φ(x).

    Example:
        >>> feed_forward_activation("relu2", torch.tensor([-1.0, 2.0]))
        tensor([0., 4.])
        >>> feed_forward_activation("geglu", torch.tensor([0.0, 2.0]))
        tensor([0.])
    """
    if name == "gelu":
        return F.gelu(inner)
    if name == "relu2":
        return F.relu(inner).square()
    gate, up = inner.chunk(2, -1)
    return (F.silu(gate) if name == "swiglu" else F.gelu(gate)) * up


def feed_forward_activation_backward(
    name: str, inner: Float[Tensor, "... MH"], gradient: Float[Tensor, "... H"]
) -> Float[Tensor, "... MH"]:
    """The gradient of `inner`, from that of `feed_forward_activation(name, inner)`.

    Example:
        >>> feed_forward_activation_backward("relu2", torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 1.0]))
        tensor([0., 4.])
    """
    if name == "gelu":
        return torch.ops.aten.gelu_backward(gradient, inner)
    if name == "relu2":
        return 2 * F.relu(inner) * gradient
    # Written into the halves of one tensor: concatenating two would copy all values.
    result = torch.empty_like(inner)
    (gate, up), (gate_gradient, up_gradient) = inner.chunk(2, -1), result.chunk(2, -1)
    if name == "swiglu":
        torch.ops.aten.silu_backward.grad_input(gradient * up, gate, grad_input=gate_gradient)
        torch.mul(gradient, F.silu(gate), out=up_gradient)
    else:
        torch.ops.aten.gelu_backward.grad_input(gradient * up, gate, grad_input=gate_gradient)
        torch.mul(gradient, F.gelu(gate), out=up_gradient)
    return result
