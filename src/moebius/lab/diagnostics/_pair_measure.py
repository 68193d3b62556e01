"""The contract of measures of two routings of the same rows: of two checkpoints, or of two seeds."""

from typing import Any

import pandas as pd

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics._rows import PIECE, RoutedRows
from moebius.lab.diagnostics._sums import Sums


class PairMeasure(Sums):
    """A measure of how two gates route the same rows, taken batch by batch.

    It keeps sums and merges as a `Measure` does. A subclass adds to the sums in `add_rows(rows, others)` and reads them
    in `frame`.

    Example:
        >>> import torch
        >>> from moebius.lab.diagnostics import Saturation
        >>> rows = RoutedRows(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), k=1)
        >>> Saturation.of(rows, rows)["saturation"].tolist()
        [1.0]

    Reference: ours.
    """

    @classmethod
    def of(cls, rows: RoutedRows, others: RoutedRows, **arguments: Any) -> pd.DataFrame:
        """The table of one batch.

        Arguments:
            rows: of the first gate.
            others: the same rows, in the same order, of the second.
            arguments: of the measure.
        """
        measure = cls(**arguments)
        measure.update(rows, others)
        return measure.frame()

    def update(self, rows: RoutedRows, others: RoutedRows) -> None:
        """Add a batch of rows; what either calls padding is left out.

        Raises:
            ArgumentError: the two have not as many rows or experts, weights are not finite, or the number of experts is
                another one than before.
        """
        if rows.weights.shape != others.weights.shape:
            rule = "needs the rows and experts of the first routing, " + " × ".join(map(str, rows.weights.shape))
            fix = "the outputs of both gates for the same rows, in the same order"
            raise ArgumentError("others", rule, " × ".join(map(str, others.weights.shape)), fix)
        for padded in (rows.real, others.real):
            if padded is not None and not bool(padded.all()):
                real = padded
                rows, others = rows.take(real), others.take(real)
                return self.update(rows, others)
        if not len(rows):
            return None
        rows.check()
        others.check()
        self._describe(rows.experts, max(rows.k, others.k), {})
        for start in range(0, len(rows), PIECE):
            pieces = [side.take(slice(start, start + PIECE)) for side in (rows, others)]
            self.add("rows", len(pieces[0]))
            self.add_rows(*pieces)
        return None

    def add_rows(self, rows: RoutedRows, others: RoutedRows) -> None:
        """Add a batch of at least one row, none of them padding, to the sums."""
        raise TypeError(f"{type(self).__name__} is a measure without a method add_rows")
