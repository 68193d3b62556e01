"""Formats that are wide enough for sums and logarithms."""

from jaxtyping import Shaped
from torch import Tensor


def at_least_float32(values: Shaped[Tensor, "*any"]) -> Shaped[Tensor, "*any"]:
    """The values in float32 if their format is narrower, or holds whole numbers: a softmax in bf16 has two digits.

    Example:
        >>> import torch
        >>> at_least_float32(torch.tensor([1, 2])).dtype, at_least_float32(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return values.float() if not values.is_floating_point() or values.itemsize < 4 else values
