"""The three loads of an expert, and what a random balanced router gives for each."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from moebius.lab.diagnostics._null import balanced_loads
from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.diagnostics._sums import Sums

# Runs for the rows · largest weights · sums of weights.
LOADS = ("assignments", "wins", "weight")


def add_loads(measure: Sums, rows: RoutedRows) -> None:
    """Add the three loads of each expert to the sums of their names."""
    for name, load_E in zip(LOADS, (rows.counts, rows.wins, rows.weight_sums), strict=True):
        measure.add(name, load_E)


def loads_with_null(
    sums: Mapping[str, Any], rows: int, k: int
) -> Iterator[tuple[str, Float[np.ndarray, " E"], Float[np.ndarray, "N E"]]]:
    """Name, load of each expert, and drawn loads of a random balanced router, for each of the three.

    Arguments:
        sums: of a measure.
        rows: T, the rows that the drawn loads are of.
        k: experts of each row.
    """
    for name in LOADS:
        load_E = np.asarray(sums[name])
        yield name, load_E, balanced_loads(rows, len(load_E), 1 if name == "wins" else k)


def violation(loads: Float[np.ndarray, "... E"]) -> Any:
    """(max − mean) / |mean| over the last axis; 0 where all loads are 0."""
    mean = loads.mean(-1)
    return (loads.max(-1) - mean) / np.where(mean == 0, 1, np.abs(mean))
