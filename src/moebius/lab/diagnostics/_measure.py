"""The contract of measures: sums that rows are added to, and a tidy table of them."""

from typing import Any, ClassVar, Self

import pandas as pd
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics._rows import RoutedRows


class Measure:
    """A measure of how rows are routed, taken batch by batch.

    All that it keeps are sums, so that a data set may be larger than memory, and parts of it may be measured apart:
    two measures of the same arguments merge into that of all rows. A subclass adds to the sums in `add_rows` and reads
    them in `frame`.

    Attributes:
        requires: fields of `RoutedRows` that it reads besides weights, probs, kept and k; a group as "groups.class".

    Example:
        >>> from moebius.lab.diagnostics import Load
        >>> halves = Load(), Load()
        >>> halves[0].update(RoutedRows(torch.tensor([[0.75, 0.25]])))
        >>> halves[1].update(RoutedRows(torch.tensor([[0.25, 0.75]])))
        >>> halves[0].merge(halves[1]).frame()["load"].tolist()
        [0.5, 0.5]

    Reference: ours.
    """

    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @classmethod
    def of(cls, rows: RoutedRows, **arguments: Any) -> pd.DataFrame:
        """The table of one batch.

        Arguments:
            rows: of the gate.
            arguments: of the measure.
        """
        measure = cls(**arguments)
        measure.update(rows)
        return measure.frame()

    @classmethod
    def accepts(cls, rows: RoutedRows) -> bool:
        """Whether the rows have all that the measure reads."""
        return all(_has(rows, name) for name in cls.requires)

    def update(self, rows: RoutedRows) -> None:
        """Add a batch of rows; padding is left out.

        Raises:
            ArgumentError: the rows lack something that the measure reads, or weights are not finite.
        """
        for name in self.requires:
            if not _has(rows, name):
                rule = f"{type(self).__name__} reads {name}, which these rows do not have"
                raise ArgumentError("rows", rule, None, f"RoutedRows(weights, {name.split('.')[0]}=…)")
        if rows.real is not None:
            rows = rows.take(rows.real)
        if len(rows):
            self.add_rows(rows)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add a batch of at least one row, none of them padding, to the sums."""
        raise TypeError(f"{type(self).__name__} is a measure without a method add_rows")

    def frame(self) -> pd.DataFrame:
        """The measure of all rows so far: one observation per line, without gaps, with its null beside it."""
        raise TypeError(f"{type(self).__name__} is a measure without a method frame")

    def merge(self, other: Self) -> Self:
        """Add the rows of another measure of the same arguments to this one.

        Returns:
            This measure.
        """
        for name, value in other.sums.items():
            self.add(name, value)
        return self

    def add(self, name: str, value: Tensor | float) -> None:
        """Add to the sum of this name, which begins at 0 and is kept in float64."""
        value = torch.as_tensor(value).double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value


def _has(rows: RoutedRows, name: str) -> bool:
    field, _, group = name.partition(".")
    return group in rows.groups if group else getattr(rows, field) is not None
