"""Hashing of whole numbers, the same on every machine."""

from jaxtyping import Int
from torch import Tensor


def mix_bits(keys: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Hash each key so that every bit of the hash depends on every bit of the key.

    Example:
        >>> import torch
        >>> mix_bits(torch.tensor([0, 1, 2])).tolist()
        [0, 6238072747940578789, -2606959012126976886]

    Reference: Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number Generators (the finaliser of splitmix64).
    """
    keys = (keys ^ _shift_right(keys, 30)) * -4658895280553007687
    keys = (keys ^ _shift_right(keys, 27)) * -7723592293110705685
    return keys ^ _shift_right(keys, 31)


def _shift_right(keys: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's `>>` on signed numbers fills with the sign."""
    return (keys >> bits) & ((1 << (64 - bits)) - 1)
