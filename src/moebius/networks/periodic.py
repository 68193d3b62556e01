"""Numbers as sines and cosines of trained frequencies."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer, positive_number


class Periodic(nn.Module):
    """Each number as sines and cosines: sin(2π c_k x), cos(2π c_k x) for k = 1 … K, with trained c of each column.

    Arguments:
        columns: number of columns.
        frequencies: K, number of frequencies of each column.
        scale: standard deviation of the frequencies when they are drawn; x is expected to be standardised.

    Shapes: x (…, columns) → (…, columns · 2 K).

    Raises:
        ArgumentError: a number below 1, or a scale not above 0.

    Example:
        >>> Periodic(columns=3, frequencies=4)(torch.zeros(5, 3)).shape
        torch.Size([5, 24])

    Reference: Gorishniy, Rubachev, Babenko 2022, On Embeddings for Numerical Features in Tabular Deep Learning, section
        3.2; the layer after it is the first of the network that gets the values.
    """

    def __init__(self, columns: int, frequencies: int, scale: float | int = 0.1):
        super().__init__()
        self.columns, self.frequencies = positive_integer("columns", columns), frequencies
        self.scale, self.outputs = positive_number("scale", scale), 2 * columns * frequencies
        self.weight = nn.Parameter(self.scale * torch.randn(columns, positive_integer("frequencies", frequencies)))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Sines, then cosines, column by column."""
        angle = 2 * math.pi * x.unsqueeze(-1) * self.weight
        return torch.cat([angle.sin(), angle.cos()], -1).flatten(-2)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"columns={self.columns}, frequencies={self.frequencies}, scale={self.scale}"
