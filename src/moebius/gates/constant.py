"""The gate whose scores are learned, and the same for all rows."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer


class Constant(nn.Module):
    """Learned scores that do not depend on the row: scores = b.

    With the router `soft` it learns a weight for each expert; with `per_class` a weight for each class and expert. It
    is what a gate that reads its rows has to beat, and begins as the uniform gate, b = 0.

    Arguments:
        experts: E, number of scores per row.

    Shapes: vectors (…, D) → (…, E); images (T, channels, height, width) → (T, E).

    Raises:
        ArgumentError: experts below 1.

    Example:
        >>> import torch
        >>> Constant(experts=2)(torch.ones(3, 1, 8, 8)).shape
        torch.Size([3, 2])

    Reference: Ting, Witten 1999, Issues in Stacked Generalization, for weights per class; the constant gate is ours.
    """

    def __init__(self, experts: int):
        super().__init__()
        self.experts = positive_integer("experts", experts)
        self.bias = nn.Parameter(torch.zeros(experts))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """The same scores for each row."""
        # An input of four axes is a batch of images, one row each; any other has one axis of features, the last.
        rows = x.shape[:1] if x.ndim == 4 else x.shape[:-1]
        return x.new_zeros(*rows, self.experts) + self.bias
