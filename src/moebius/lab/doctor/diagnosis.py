"""The outcome of an examination: findings, and the measures that they rest on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill
from typing import Any

import pandas as pd
from torch import Tensor

from moebius.kit.registry import find, kinds
from moebius.lab.data.split import Split
from moebius.lab.diagnostics._measure import Measure
from moebius.lab.doctor.trial import Trial
from moebius.lab.doctor.try_remedies import try_remedies
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
        examined: which of the rows were looked at; None for all.
    """

    call: ModelCall
    task: Task
    split: Split
    names: Mapping[str, Sequence[str]]
    examined: Tensor | None = None


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

    def try_remedies(
        self, kinds: Sequence[str] | None = None, seed: int = 0, progress: Callable[[str], None] | None = None
    ) -> list[Trial]:
        """Try what the findings suggest: each remedy is fitted on a half of the rows and measured on the other half.

        A gain is printed with its interval at 95 % over the measured rows, which are paired: what applying the remedy
        gives on other rows like these lies in it 19 times out of 20. Each trial has a gain of its own, and none was
        chosen by it; whoever then takes the best of many trials has to expect a little less than it says.

        Arguments:
            kinds: of the room `moebius.lab.remedies`; None for those that findings suggest. One that no finding
                suggests is tried for the first gate.
            seed: of the halves, and of everything random.
            progress: receives a line before each remedy.

        Returns:
            A trial for each remedy, gate and, where experts are pruned, finding: its `model` is a changed copy, or its
            `reason` says why it was not tried. The model of the diagnosis stays as it is.

        Raises:
            ArgumentError: there are too few rows, or the model is not of moebius.
            UnknownKindError: no remedy is called so.
        """
        return try_remedies(self, kinds, seed, progress)

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
