"""What diagnostics add to a report: their tables and sections, found by the registry.

A diagnostic is a kind of the room `diagnostics`: a file of `moebius/lab/diagnostics/`, an entry point of the group
`moebius.diagnostics`, or a component that `mb.register("diagnostics")` names. The file that defines the component may
also define:

    table(rows: GateRows) -> DataFrame | None           the lines of one gate, for one split of one run
    split_table(rows: SplitRows) -> DataFrame | None    the lines of one split of one run, for all its gates together
    section(study: Study) -> Section | None             a chapter of the page, drawn from the study's tables
    ORDER                                               its place on the page; 90 without one

A measure, a subclass of `moebius.lab.diagnostics._measure.Measure`, has `table` already.

The report writes the lines to tables/KIND.csv and prepends the columns variant, seed and split, and gate to those of
`table`. A file that only adds a section registers `section` itself.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moebius.kit.errors import MoebiusError
from moebius.kit.registry import find, kinds
from moebius.lab.report.frames import Frame, concatenate, prepend_columns
from moebius.lab.report.gate_rows import GateRows, SplitRows

HOOKS = ("table", "split_table", "section")
# Before the appendix, after the package's sections.
LAST_ORDER = 90


@dataclass(frozen=True)
class Diagnostic:
    """A kind of the room `diagnostics`, and what its file defines for the report.

    Arguments:
        kind: its name, which is that of its table.
        hooks: `table`, `split_table` and `section`, as far as the file defines them.
        order: place of the section on the page.
    """

    kind: str
    hooks: Mapping[str, Callable[..., Any]]
    order: int | float


def find_diagnostics() -> list[Diagnostic]:
    """All diagnostics that add a table or a section, sorted by kind.

    Raises:
        MoebiusError: one file defines two diagnostics, so that its table and section could belong to either.
    """
    diagnostics: list[Diagnostic] = []
    owners: dict[str, str] = {}
    for kind in kinds("diagnostics"):
        component: Any = find("diagnostics", kind)
        module = getattr(component, "__module__", None) or ""
        names = vars(sys.modules[module]) if module in sys.modules else {}
        # Only what the file defines: it may import another diagnostic's `table`.
        hooks = {name: names[name] for name in HOOKS if getattr(names.get(name), "__module__", None) == module}
        if hooks and module in owners:
            both = f"{owners[module]!r} and {kind!r}"
            rule = f"{module} defines the diagnostics {both}, so that its {' and '.join(hooks)} could belong to either"
            raise MoebiusError(rule, f"move {kind!r} to another file")
        if hooks:
            owners[module] = kind
        if isinstance(component, type) and hasattr(component, "table"):
            hooks.setdefault("table", component.table)  # type: ignore[attr-defined]
        if hooks:
            diagnostics.append(Diagnostic(kind, hooks, names.get("ORDER", LAST_ORDER)))
    return diagnostics


def tabulate_rows(rows: SplitRows, diagnostics: Sequence[Diagnostic]) -> dict[str, Frame]:
    """The tables of the diagnostics for one split of one run, by kind.

    Raises:
        MoebiusError: a diagnostic's table is neither a DataFrame nor None.
    """
    calls: list[tuple[str, GateRows | SplitRows, dict[str, str]]] = [("split_table", rows, {})]
    calls += [("table", gate_rows, {"gate": gate_rows.gate}) for gate_rows in rows.by_gate()]
    tables = {}
    for diagnostic in diagnostics:
        frames = []
        for hook, argument, lead in (call for call in calls if call[0] in diagnostic.hooks):
            frame = diagnostic.hooks[hook](argument)
            if frame is not None and not isinstance(frame, pd.DataFrame):
                rule = f"diagnostics kind {diagnostic.kind!r}: {hook}(rows) needs to return a DataFrame or None"
                raise MoebiusError(f"{rule}, got {frame!r}", "return pandas.DataFrame({'expert': [0], 'value': [0.5]})")
            frames += [] if frame is None else [prepend_columns(frame, lead)]
        if frames:
            tables[diagnostic.kind] = concatenate(frames)
    return tables
