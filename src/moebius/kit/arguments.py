"""Checks of arguments that components share. Each returns the checked value or raises an ArgumentError with a fix."""

from collections.abc import Iterable
from math import isfinite, prod

from jaxtyping import Float
from torch import Tensor

from moebius.kit.errors import ArgumentError


def positive_integer(argument: str, value: object, most: int | None = None) -> int:
    """`value` if it is a whole number of at least 1, and no larger than `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(argument, "needs a whole number of at least 1", value, f"{argument}=1")
    if most is not None and value > most:
        raise ArgumentError(argument, f"needs at most {most:,}", value, f"{argument}={most}")
    return value


def positive_number(argument: str, value: float | int) -> float:
    """`value` if it is a finite number above 0."""
    if isinstance(value, bool) or not isfinite(value) or value <= 0:
        raise ArgumentError(argument, "needs a number above 0", value, f"{argument}=0.5")
    return float(value)


def non_negative(argument: str, value: float | int) -> float:
    """`value` if it is a finite number of at least 0."""
    if isinstance(value, bool) or not isfinite(value) or value < 0:
        raise ArgumentError(argument, "needs a number of at least 0", value, f"{argument}=0")
    return float(value)


def positive_widths(argument: str, values: object) -> tuple[int, ...]:
    """`values` as a tuple if there is at least one and all are whole numbers of at least 1."""
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ArgumentError(argument, "needs a list of widths", values, f"{argument}=[64]")
    widths = tuple(values)
    if not widths:
        raise ArgumentError(argument, "needs at least one width", list(widths), f"{argument}=[64]")
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise ArgumentError(argument, "needs whole numbers of at least 1", list(widths), f"{argument}=[64]")
    return widths


def flatten_features(x: Float[Tensor, "..."], features: int) -> Float[Tensor, "... D"]:
    """Merge the trailing axes of `x` into one axis of `features` (D): images become vectors, vectors stay.

    Arguments:
        x: any tensor with a batch axis.
        features: D, the size of the merged axis.

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
    rule = f"no trailing axes of an input of shape {tuple(x.shape)} hold as many"
    # The width of vectors or tokens; for images, all of their pixels.
    fitting_features = x.shape[-1] if x.ndim < 4 else prod(x.shape[1:])
    raise ArgumentError("features", rule, features, f"features={fitting_features}")
