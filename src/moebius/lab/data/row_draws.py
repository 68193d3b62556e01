"""Random choices of rows, the same in every call."""

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError


def draw_order(total: int, draw: int = 0) -> Tensor:
    """A random order of `total` rows, the same in every call with the same number `draw`."""
    return torch.from_numpy(np.random.default_rng(draw).permutation(total))


def count_validation_rows(total: int, validation: float | None, validation_rows: int) -> int:
    """The number of rows to hold out of `total` training rows, by their share or by their number.

    Arguments:
        total: number of training rows.
        validation: share of them, strictly between 0 and 1; None = `validation_rows` says how many.
        validation_rows: their number, at least 0.

    Raises:
        ArgumentError: both are given, one is out of its range, or no row would remain to train on.

    Example:
        >>> count_validation_rows(50, 0.1, 0), count_validation_rows(50, None, 7)
        (5, 7)
    """
    if validation is not None:
        if validation_rows:
            rule = "cannot stand beside validation_rows, because both say how many rows are held out"
            raise ArgumentError("validation", rule, validation, "remove validation_rows, or validation: null")
        if not 0 < validation < 1:
            raise ArgumentError("validation", "must lie between 0 and 1", validation, "validation: 0.1")
        validation_rows = max(1, round(validation * total))
    if validation_rows < 0:
        raise ArgumentError("validation_rows", "must be at least 0", validation_rows, "validation_rows: 0")
    if validation_rows >= total:
        rule = f"must be below {total}, the number of training rows"
        raise ArgumentError("validation_rows", rule, validation_rows, "validation_rows: 0")
    return validation_rows


def check_rows(argument: str, rows: int | None, most: int | None = None, noun: str = "") -> None:
    """Refuse a number of rows to keep that is below 1, or above `most`, which is called `noun`.

    Raises:
        ArgumentError: it is.
    """
    if rows is not None and rows < 1:
        raise ArgumentError(argument, "must be at least 1, or null for all rows", rows, f"{argument}: null")
    if rows is not None and most is not None and rows > most:
        raise ArgumentError(argument, f"must be at most {most}, {noun}", rows, f"{argument}: null")
