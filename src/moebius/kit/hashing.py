"""Whole numbers that look random and are always the same."""

from jaxtyping import Int
from torch import Tensor


def mix_bits(keys: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Every bit of the result depends on every bit of the key: neighbours come out far apart.

    Example:
        >>> import torch
        >>> mix_bits(torch.tensor([0, 1, 2])).tolist()
        [0, 6238072747940578789, -2606959012126976886]

    Reference: Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number Generators (the finaliser of splitmix64).
    """
    keys = (keys ^ _shifted(keys, 30)) * -4658895280553007687
    keys = (keys ^ _shifted(keys, 27)) * -7723592293110705685
    return keys ^ _shifted(keys, 31)


def _shifted(keys: Tensor, bits: int) -> Tensor:
    """Shifted to the right with zeros from the left, which torch's signed numbers do not do by themselves."""
    return (keys >> bits) & ((1 << (64 - bits)) - 1)
