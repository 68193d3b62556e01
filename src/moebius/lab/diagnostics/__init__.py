"""Diagnostics of gates: rows as a gate routed them in, tidy tables and chapters of the report out.

A measure is a subclass of `Measure` (of two routings of the same rows: of `PairMeasure`) in a file of its name. It adds
batches of `RoutedRows` to sums, merges with another, and gives a pandas frame with one observation per line, the index
0, 1, 2 … and a null, which is what chance gives, beside its value; experts are numbered from 0. docs/measures.md lists
them.

    measure = mb.lab.diagnostics.Load()
    for batch in batches:
        measure.update(batch)
    measure.frame()

Diagnostics that are chapters of the report are functions of numpy arrays: `weights` of shape (T, E), whole-number
labels or groups of shape (T,), and the names of the groups. Their files may define `table`, `split_table`, `section`
and `ORDER`: `moebius.lab.report.find_diagnostics` says what they are.
"""

from moebius.kit.registry import open_room
from moebius.lab.diagnostics._measure import Measure as Measure
from moebius.lab.diagnostics._pair_measure import PairMeasure as PairMeasure
from moebius.lab.diagnostics._rows import RoutedRows as RoutedRows
from moebius.lab.diagnostics._weights import without_expert as without_expert

open_room(__name__)
