"""Measures that also have a value for each batch: a call of `update`."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from moebius.lab.diagnostics._measure import Measure
from moebius.lab.diagnostics._rows import RoutedRows


class BatchMeasure(Measure):
    """A measure that adds what its sums gained by a batch, once the batch is complete.

    Reference: ours.
    """

    exempt: ClassVar[Mapping[str, str]] = {"does_not_depend_on_the_batches": "it has a value for each batch"}

    def update(self, rows: RoutedRows) -> None:
        """Add a batch of rows; padding is left out."""
        before = dict(self.sums)
        super().update(rows)
        if len(rows.unpadded):
            self.add("batches", 1)
            self.add_batch({name: value - before.get(name, 0) for name, value in self.sums.items()})

    def add_batch(self, sums: Mapping[str, Tensor]) -> None:
        """Add what a batch gives as a whole; `sums` are those of its rows."""
        raise TypeError(f"{type(self).__name__} is a measure of batches without a method add_batch")
