"""The feed-forward expert of transformers."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import flatten_features, positive_integer
from moebius.kit.errors import ArgumentError
from moebius.networks import start_layers
from moebius.networks.feed_forward import FEED_FORWARD, GATED, feed_forward_activation


class FFN(nn.Module):
    """A feed-forward block: from D features to a wider hidden layer and back to D.

    gelu, relu2:    y = W_2 a(W_1 x + b_1) + b_2, with a = x Φ(x) (the exact form, by erf) or max(0, x)²
    swiglu, geglu:  y = W_2 (a(W_g x + b_g) ∘ (W_u x + b_u)) + b_2, with a = x σ(x) or x Φ(x)

    Arguments:
        features: D, width of a row of the input and of the output.
        hidden: width of the hidden layer; gated activations have two matrices of this width, W_g above W_u in one
            tensor.
        activation: one of gelu, relu2, swiglu, geglu.
        bias: whether the layers have biases b.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (…, D) → (…, D).

    Raises:
        ArgumentError: a width below 1, an unknown activation, or an input of another width.

    Example:
        >>> import torch
        >>> FFN(features=8, hidden=32)(torch.zeros(2, 5, 8)).shape
        torch.Size([2, 5, 8])

    Reference: Vaswani et al. 2017, Attention Is All You Need, equation 2; Shazeer 2020, GLU Variants Improve
    Transformer, equation 6 (without bias there); So et al. 2021, Primer, section 4 (relu2).
    """

    def __init__(self, features: int, hidden: int, activation: str = "gelu", bias: bool = True, init: str = "torch"):
        super().__init__()
        if activation not in FEED_FORWARD:
            raise ArgumentError("activation", f"needs one of {', '.join(FEED_FORWARD)}", activation, "activation: gelu")
        self.features, self.activation = positive_integer("features", features), activation
        self.hidden, self.bias = positive_integer("hidden", hidden), bias
        matrices = 2 if activation in GATED else 1
        self.inner = nn.Linear(features, matrices * hidden, bias)
        self.outer = nn.Linear(hidden, features, bias)
        self.init = start_layers(self, init, {self.inner: matrices})

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... D"]:
        """Transform each row."""
        return self.rowwise(x, lambda linear, x: linear(x))

    def rowwise(self, x: Tensor, layer: Callable[[nn.Linear, Tensor], Tensor]) -> Tensor:
        """The output, with `layer(linear, x)` for each dense layer, by which executions run all experts at once."""
        inner = layer(self.inner, flatten_features(x, self.features))
        return layer(self.outer, feed_forward_activation(self.activation, inner))

    def extra_repr(self) -> str:
        """The argument that the shapes of the parameters do not determine."""
        return f"activation={self.activation}"
