"""Checks the rate of dropout."""

import math

from moebius.kit.errors import ArgumentError


def dropout_rate(argument: str, value: float | int) -> float:
    """`value`, if it is a number from 0 to below 1.

    Raises:
        ArgumentError: it is not.

    Example:
        >>> dropout_rate("dropout", 0.25)
        0.25
    """
    if isinstance(value, bool) or not math.isfinite(value) or not 0 <= value < 1:
        raise ArgumentError(argument, "needs a number from 0 to below 1", value, f"{argument}: 0.5")
    return float(value)
