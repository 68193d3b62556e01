"""The gate on a hypersphere."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import flatten_features, positive_integer, positive_number
from moebius.kit.errors import ArgumentError

# What the learned temperature does not go below, and what a length is at least, so that rows of zeros have gradients.
_COLDEST = 0.01
_SHORTEST = 1e-4


class Cosine(nn.Module):
    """Scores are cosines between the projected row and a learned direction for each expert.

    score_e = cos(W x, v_e) / τ,  τ = max(exp(θ), 0.01)

    How long a row is has no say, and in few dimensions the gate cannot pull the representations towards as many
    directions as there are experts. θ is learned; scores lie between −1/τ and 1/τ. A row of zeros scores 0.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        experts: E, number of scores per row.
        dim: of the projection; half as many as experts, at least 2, unless given.
        temperature: τ at the start, at least 0.01. The paper starts at 0.3 under a softmax and at 0.07 under sigmoids.

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
    Collapse of Sparse Mixture of Experts, section 3. The logarithm as parameter and the least temperature, which bounds
    the scores, are those of Tutel's cosine gate; the authors' code also resets the length of v_e in every step, which
    dividing by it makes needless.
    """

    def __init__(self, features: int, experts: int, dim: int | None = None, temperature: float | int = 0.3):
        super().__init__()
        self.features, self.experts = positive_integer("features", features), positive_integer("experts", experts)
        self.dim = dim = max(experts // 2, 2) if dim is None else positive_integer("dim", dim)
        if positive_number("temperature", temperature) < _COLDEST:
            raise ArgumentError("temperature", f"needs a number of at least {_COLDEST}", temperature)
        self.temperature = float(temperature)
        self.projection = nn.Linear(features, dim, bias=False)
        self.directions = nn.Parameter(torch.randn(experts, dim))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """Score each row."""
        row, directions = _wide(self.projection(flatten_features(x, self.features))), _wide(self.directions)
        row, directions = F.normalize(row, dim=-1, eps=_SHORTEST), F.normalize(directions, dim=-1, eps=_SHORTEST)
        temperature = _wide(self.log_temperature).clamp(min=math.log(_COLDEST)).exp()
        return (F.linear(row, directions) / temperature).to(x.dtype)


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: a temperature of 0.01 makes a rounding error of a cosine a hundred times as large."""
    return values.float() if values.itemsize < 4 else values
