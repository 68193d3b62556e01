"""The linear expert."""

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.arguments import flatten_features, positive


class Linear(nn.Module):
    """Logits are a linear map of the row: y = x Wᵀ + b.

    Arguments:
        features: D, width of a row; trailing axes of the input are merged until their product is this (images).
        classes: C, number of outputs.

    Shapes: x (…, D) or images (T, channels, height, width) → (…, C).

    Raises:
        ArgumentError: features or classes below 1, or an input of another width.

    Example:
        >>> Linear(features=64, classes=10)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Reference: ours (multinomial logistic regression); study 1's expert.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.features = positive("features", features)
        self.linear = nn.Linear(features, positive("classes", classes))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... C"]:
        """Logits of each row."""
        return self.linear(flatten_features(x, self.features))

    @staticmethod
    def stacked(experts: Sequence[Self], x: Float[Tensor, "T ..."]) -> Float[Tensor, "T E C"]:
        """The outputs of equal experts on the same rows, as one product."""
        weight = torch.cat([expert.linear.weight for expert in experts])
        bias = torch.cat([expert.linear.bias for expert in experts])
        outputs = F.linear(flatten_features(x, experts[0].features), weight, bias)
        return outputs.unflatten(-1, (len(experts), -1))
