"""Small checks and reshapes that components share. Each check returns the value, or raises an ArgumentError."""

import math
from collections.abc import Iterable
from math import prod

from jaxtyping import Float
from torch import Tensor

from moebius.kit.errors import ArgumentError


def positive_integer(argument: str, value: object) -> int:
    """`value` if it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(argument, "needs a whole number of at least 1", value)
    return value


def positive_number(argument: str, value: float | int) -> float:
    """`value` if it is a finite number above 0."""
    if isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise ArgumentError(argument, "needs a number above 0", value)
    return float(value)


def non_negative(argument: str, value: float | int) -> float:
    """`value` if it is a finite number of at least 0."""
    if isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise ArgumentError(argument, "needs a number of at least 0", value)
    return float(value)


def positive_widths(argument: str, values: object) -> tuple[int, ...]:
    """`values` as a tuple if there is at least one and all are whole numbers of at least 1."""
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ArgumentError(argument, "needs a list of widths", values, f"{argument}=[64]")
    values = tuple(values)
    if not values:
        raise ArgumentError(argument, "needs at least one width", list(values), f"{argument}=[64]")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(argument, "needs whole numbers of at least 1", list(values), f"{argument}=[64]")
    return values


def flatten_features(x: Float[Tensor, "..."], features: int) -> Float[Tensor, "... D"]:
    """Merge the trailing axes of `x` until their product is `features` (D): images become vectors, vectors stay.

    Raises:
        ArgumentError: no number of trailing axes has that product.

    Example:
        >>> import torch
        >>> flatten_features(torch.zeros(5, 1, 8, 8), 64).shape
        torch.Size([5, 64])
        >>> flatten_features(torch.zeros(5, 7, 64), 64).shape
        torch.Size([5, 7, 64])
    """
    if x.shape[-1] == features:
        return x
    for axis in range(1, x.ndim):
        if prod(x.shape[axis:]) == features:
            return x.flatten(axis)
    raise ArgumentError("features", f"no trailing axes of an input of shape {tuple(x.shape)} hold as many", features)
