"""The outcome of an examination: findings, and the measures that they rest on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

import pandas as pd

from moebius.kit.registry import find, kinds
from moebius.lab.data.split import Split
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._illness import Finding
from moebius.lab.training.call_model import ModelCall
from moebius.tasks._task import Task

WIDTH = 100


@dataclass(frozen=True)
class Subject:
    """What was examined.

    Arguments:
        call: the model.
        task: what it has learned.
        split: all rows that were given.
        names: of the groups "class" and "domain".
    """

    call: ModelCall
    task: Task
    split: Split
    names: Mapping[str, Sequence[str]]


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What the gates and experts of a model suffer from.

    Arguments:
        findings: illnesses by gate, and by code within a gate.
        examinations: what is known of each gate.
        subject: what was examined; None for a model of other people.
    """

    findings: tuple[Finding, ...]
    examinations: tuple[Examination, ...]
    subject: Subject | None = None

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def kinds(self) -> set[str]:
        """The kinds of the findings."""
        return {finding.kind for finding in self.findings}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every measure of the room `diagnostics` that the rows have what it needs for, by kind, for all gates."""
        tables = {}
        for kind in kinds("diagnostics"):
            measure = find("diagnostics", kind)
            if isinstance(measure, type) and issubclass(measure, Measure):
                frames = [
                    (gate.gate, measure.of(gate.rows)) for gate in self.examinations if measure.accepts(gate.rows)
                ]
                if frames:
                    lines = [frame.assign(gate=gate)[["gate", *frame.columns]] for gate, frame in frames]
                    tables[kind] = pd.concat(lines, ignore_index=True)
        return tables

    def frame(self) -> pd.DataFrame:
        """The findings as a table, one line each."""
        columns = ["code", "kind", "gate", "experts", "evidence", "effect_name", "effect", "low", "high", "null"]
        columns += ["null_model", "remedy"]
        return pd.DataFrame(
            [[getattr(finding, name) for name in columns] for finding in self.findings], columns=columns
        )

    def to_dict(self) -> dict[str, Any]:
        """The findings as they go into JSON."""
        gates = [
            {"gate": gate.gate, "rows": len(gate.rows), "experts": gate.rows.experts, "k": gate.rows.k}
            for gate in self.examinations
        ]
        return {"schema": 1, "gates": gates, "findings": [dict(finding.to_dict()) for finding in self.findings]}

    def text(self) -> str:
        """The findings in words."""
        count = len(self.examinations)
        rows = max((len(gate.rows) for gate in self.examinations), default=0)
        where = f"{count} gate{'s' * (count != 1)} on {rows:,} rows"
        if not self.findings:
            return f"Nothing found: {where}."
        lines = [f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}: {where}."]
        for finding in self.findings:
            lines += [
                "",
                f"{finding.code} {finding.kind} ({finding.gate})",
                _block("seen", f"{finding.evidence}."),
                _block("test", f"{finding.figures()}."),
                _block("try", f"{finding.remedy}."),
            ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        heads = "".join(f"<th align='left'>{name}</th>" for name in ("finding", "gate", "seen", "test", "try"))
        lines = [
            [f"{finding.code} {finding.kind}", finding.gate, finding.evidence, finding.figures(), finding.remedy]
            for finding in self.findings
        ]
        cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
        return f"<table><caption>{escape(self.text().splitlines()[0])}</caption><tr>{heads}</tr>{cells}</table>"


def _block(name: str, text: str) -> str:
    return fill(text, WIDTH, initial_indent=f"  {name:<5}", subsequent_indent=" " * 7)
