"""What diagnostics add to a report: their tables and sections, found by the registry.

A diagnostic is a kind of the room `diagnostics`: a file of `moebius/lab/diagnostics/`, an entry point of the group
`moebius.diagnostics`, or a component that `mb.register("diagnostics")` names. The file that defines the component may
also define:

    table(rows: GateRows) -> DataFrame | None           the lines of one gate, for one split of one run
    split_table(rows: SplitRows) -> DataFrame | None    the lines of one split of one run, for all its gates together
    section(study: Study) -> Section | None             a chapter of the page, drawn from the study's tables
    ORDER                                               its place on the page; 90 without one

The report writes the lines to tables/KIND.csv and prepends the columns variant, seed and split, and gate to those of
`table`. A file that only adds a section registers `section` itself.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from moebius.kit.errors import MoebiusError
from moebius.kit.registry import find, kinds
from moebius.lab.report.blocks import Section
from moebius.lab.report.frames import Frame, concatenate, prepend_columns
from moebius.lab.report.gate_rows import GateRows, SplitRows
from moebius.lab.report.source import Study

HOOKS = ("table", "split_table", "section")
# Before the appendix, after the package's sections.
LAST_ORDER = 90


@dataclass(frozen=True)
class Diagnostic:
    """A kind of the room `diagnostics`, and the functions that its file defines for the report.

    Arguments:
        kind: its name, which is that of its table.
        table: the lines of one gate.
        split_table: the lines of all gates of a split.
        section: a chapter of the page.
        order: place of the section on the page.
    """

    kind: str
    table: Callable[[GateRows], Frame | None] | None = None
    split_table: Callable[[SplitRows], Frame | None] | None = None
    section: Callable[[Study], Section | None] | None = None
    order: int | float = LAST_ORDER


def find_diagnostics() -> list[Diagnostic]:
    """All diagnostics that add a table or a section, sorted by kind.

    Raises:
        MoebiusError: one file defines two diagnostics, so that its table and section could belong to either.
    """
    diagnostics: dict[str, Diagnostic] = {}
    for kind in kinds("diagnostics"):
        module = getattr(find("diagnostics", kind), "__module__", None) or ""
        names = vars(sys.modules[module]) if module in sys.modules else {}
        # Only what the file defines: it may import another diagnostic's `table`.
        hooks = {name: names[name] for name in HOOKS if getattr(names.get(name), "__module__", None) == module}
        if not hooks:
            continue
        if module in diagnostics:
            both = f"{diagnostics[module].kind!r} and {kind!r}"
            rule = f"{module} defines the diagnostics {both}, so that its {' and '.join(hooks)} could belong to either"
            raise MoebiusError(rule, f"move {kind!r} to another file")
        diagnostics[module] = Diagnostic(kind, **hooks, order=names.get("ORDER", LAST_ORDER))
    return list(diagnostics.values())


def tabulate_rows(rows: SplitRows, diagnostics: Sequence[Diagnostic]) -> dict[str, Frame]:
    """The tables of the diagnostics for one split of one run, by kind.

    Raises:
        MoebiusError: a diagnostic's table is neither a DataFrame nor None.
    """
    parts: dict[str, list[Frame]] = {}
    gates = list(rows.by_gate())
    for diagnostic in diagnostics:
        frames = []
        if diagnostic.table is not None:
            for gate_rows in gates:
                frame = _check_frame(diagnostic.kind, "table", diagnostic.table(gate_rows))
                frames += [] if frame is None else [prepend_columns(frame, {"gate": gate_rows.gate})]
        if diagnostic.split_table is not None:
            frame = _check_frame(diagnostic.kind, "split_table", diagnostic.split_table(rows))
            frames += [] if frame is None else [frame]
        if frames:
            parts[diagnostic.kind] = frames
    return {kind: concatenate(frames) for kind, frames in parts.items()}


def _check_frame(kind: str, hook: str, frame: Frame | None) -> Frame | None:
    if frame is not None and not isinstance(frame, pd.DataFrame):
        rule = f"diagnostics kind {kind!r}: {hook}(rows) needs to return a DataFrame or None, got {frame!r}"
        raise MoebiusError(rule, "return pandas.DataFrame({'expert': [0], 'value': [0.5]})")
    return frame
