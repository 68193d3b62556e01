"""The gate that scores by cosines."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import flatten_features, positive_integer, positive_number
from moebius.kit.errors import ArgumentError
from moebius.networks import start_layers

# The lower bound of the learned temperature.
_LOWEST_TEMPERATURE = 0.01
# The lower bound of the length that a vector is divided by, so that rows of zeros have finite gradients.
_SHORTEST_LENGTH = 1e-4


class Cosine(nn.Module):
    """The cosines between the projected row and a learned direction for each expert, over a temperature.

    score_e = cos(W x, v_e) / τ,  τ = max(exp(θ), 0.01)

    The length of a row does not affect its scores; and with few dimensions the gate cannot pull the representations
    towards as many directions as there are experts. θ is learned; scores lie between −1/τ and 1/τ. The scores of a row
    of zeros are 0.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        experts: E, number of scores per row.
        dim: width of the projection; None for E / 2, at least 2.
        temperature: initial τ, at least 0.01. The paper starts at 0.3 with a softmax and at 0.07 with sigmoids.
        init: how the weights of W begin: torch, keras, he, lecun or orthogonal, see `networks.starts`. The directions
            are normal numbers.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, E).

    Raises:
        ArgumentError: a size below 1, a temperature below 0.01, or an input of another width.

    Example:
        >>> gate = Cosine(features=64, experts=4, temperature=0.5)
        >>> scores = gate(torch.rand(5, 1, 8, 8))
        >>> scores.shape
        torch.Size([5, 4])
        >>> bool((scores.abs() <= 2.0001).all())
        True

    Reference: Chi, Dong, Huang, Dai, Ma, Patra, Singhal, Bajaj, Song, Mao, Huang, Wei 2022, On the Representation
    Collapse of Sparse Mixture of Experts, section 3. The logarithm as parameter and the lower bound of the temperature,
    which bounds the scores, are those of Tutel's cosine gate; the authors' code also resets the length of v_e in every
    step, which has no effect here, since the cosine divides by it.
    """

    def __init__(
        self,
        features: int,
        experts: int,
        dim: int | None = None,
        temperature: float | int = 0.3,
        init: str = "torch",
    ):
        super().__init__()
        self.features, self.experts = positive_integer("features", features), positive_integer("experts", experts)
        self.dim = dim = max(experts // 2, 2) if dim is None else positive_integer("dim", dim)
        if positive_number("temperature", temperature) < _LOWEST_TEMPERATURE:
            rule = f"needs a number of at least {_LOWEST_TEMPERATURE}"
            raise ArgumentError("temperature", rule, temperature, "temperature: 0.3")
        self.temperature = float(temperature)
        self.projection = nn.Linear(features, dim, bias=False)
        self.directions = nn.Parameter(torch.randn(experts, dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The scores of each row."""
        rows = _to_float32(self.projection(flatten_features(x, self.features)))
        directions = _to_float32(self.directions)
        rows, directions = (
            F.normalize(rows, dim=-1, eps=_SHORTEST_LENGTH),
            F.normalize(directions, dim=-1, eps=_SHORTEST_LENGTH),
        )
        temperature = _to_float32(self.log_temperature).clamp(min=math.log(_LOWEST_TEMPERATURE)).exp()
        return (F.linear(rows, directions) / temperature).to(x.dtype)


def _to_float32(values: Tensor) -> Tensor:
    """The values in float32 at least: a temperature of 0.01 multiplies rounding errors of the cosines by 100."""
    return values.float() if values.itemsize < 4 else values
