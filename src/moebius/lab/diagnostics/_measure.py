"""The contract of measures: sums that rows are added to, and a tidy table of them."""

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics._sums import Sums
from moebius.lab.report.gate_rows import GateRows


class Measure(Sums):
    """A measure of how rows are routed, taken batch by batch.

    All that it keeps are sums, so that a data set may be larger than memory, and parts of it may be measured apart:
    two measures of the same arguments merge into that of all rows, also where another process has pickled one of them.
    A subclass adds to the sums in `add_rows` and reads them in `frame`.

    Attributes:
        requires: fields of `RoutedRows` that it reads besides weights, probs, kept and k; a group as "groups.class",
            and "groups" for any.

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
    def table(cls, rows: GateRows) -> pd.DataFrame | None:
        """The lines of one gate in a report; None for rows that lack what the measure reads."""
        routed = _routed(rows)
        return cls.of(routed) if cls.accepts(routed) else None

    @classmethod
    def accepts(cls, rows: RoutedRows) -> bool:
        """Whether the rows have all that the measure reads."""
        return all(_has(rows, name) for name in cls.requires)

    def update(self, rows: RoutedRows) -> None:
        """Add a batch of rows; padding is left out.

        Raises:
            ArgumentError: the rows lack something that the measure reads, weights are not finite, a group has no name,
                or the number of experts is another one than before.
        """
        for name in self.requires:
            if not _has(rows, name):
                rule = f"{type(self).__name__} reads {name}, which these rows do not have"
                raise ArgumentError("rows", rule, None, f"RoutedRows(weights, {name.split('.')[0]}=…)")
        if len(rows.unpadded):
            rows.unpadded.check()
            self._describe(rows.experts, rows.k, {by: tuple(names) for by, names in rows.names.items()})
        for piece in rows.pieces() if len(rows.unpadded) else ():
            self.add("rows", len(piece))
            self.add_rows(piece)

    def add_rows(self, rows: RoutedRows) -> None:
        """Add a batch of at least one row, none of them padding, to the sums."""
        raise TypeError(f"{type(self).__name__} is a measure without a method add_rows")


@lru_cache(maxsize=1)
def _routed(rows: GateRows) -> RoutedRows:
    """The rows of a report's gate, kept until those of the next gate: measures share what they derive from them."""
    labels = {"domain": (rows.domains, rows.domain_names), "class": (rows.labels, rows.class_names)}
    groups = {by: (values, names) for by, (values, names) in labels.items() if names}
    return RoutedRows(
        torch.tensor(rows.weights),
        k=max(1, int((rows.weights != 0).sum(1).max(initial=0))),
        groups={by: torch.tensor(np.asarray(values).astype(np.int64)) for by, (values, _) in groups.items()},
        names={by: names for by, (_, names) in groups.items()},
        **{
            name: torch.tensor(values)
            for name in ("losses", "scores", "confidence")
            if (values := getattr(rows, name)) is not None
        },
    )


def _has(rows: RoutedRows, name: str) -> bool:
    field, _, group = name.partition(".")
    if field == "groups":
        return group in rows.groups if group else bool(rows.groups)
    return getattr(rows, field) is not None
