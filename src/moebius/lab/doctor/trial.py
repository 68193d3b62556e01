"""The outcome of a remedy that was tried, or why it was not."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from torch import nn

from moebius.lab.doctor.costs import Costs
from moebius.lab.doctor.gain import Gain
from moebius.lab.illnesses._illness import Finding

WIDTH = 100


@dataclass(frozen=True, repr=False)
class Trial:
    """A remedy for one gate, fitted on a half of the rows, and what it gains on the other half.

    Arguments:
        remedy: its kind.
        gate: name of the gate.
        findings: what it was tried for; none where it was asked for.
        model: the changed copy; None where the remedy was not tried.
        text_of_change: what was done to it.
        reason: why it was not tried.
        score, loss: gains on the measured rows; None where they are not finite.
        before, after: costs of the model and of the changed copy.
        rows: how many rows it was measured on.
        unexamined: how many of them the examination had not seen either.
    """

    remedy: str
    gate: str
    findings: tuple[Finding, ...] = ()
    model: nn.Module | None = None
    text_of_change: str = ""
    reason: str | None = None
    score: Gain | None = None
    loss: Gain | None = None
    before: Costs | None = None
    after: Costs | None = None
    rows: int = 0
    unexamined: int = 0

    @property
    def finding(self) -> Finding | None:
        """The first of the findings."""
        return next(iter(self.findings), None)

    @property
    def codes(self) -> str:
        """The codes of the findings: "MB001, MB017"."""
        return ", ".join(dict.fromkeys(finding.code for finding in self.findings))

    def lines(self) -> list[str]:
        """The figures in words, one a line."""
        if self.reason is not None:
            return [f"not tried: {self.reason}"]
        gains = [gain.text() for gain in (self.score, self.loss) if gain is not None]
        return [self.text_of_change, *gains, *self.cost_lines()]

    def cost_lines(self) -> list[str]:
        """What changes in work, size, use and calibration, in words."""
        if self.before is None or self.after is None:
            return []
        changes = [
            ("multiply-adds a row", self.before.multiply_adds, self.after.multiply_adds, ",.0f"),
            ("parameters", self.before.parameters, self.after.parameters, ",.0f"),
            ("experts used", self.before.used_experts, self.after.used_experts, ".2f"),
            ("calibration error", self.before.calibration_error, self.after.calibration_error, ".3f"),
        ]
        return [
            f"{name} {old:{style}} → {new:{style}}"
            for name, old, new, style in changes
            if old is not None and new is not None and f"{old:{style}}" != f"{new:{style}}"
        ]

    def text(self) -> str:
        """The trial in words."""
        title = f"{self.remedy.replace('_', ' ')} ({self.gate})"
        lines = [f"{title} for {self.codes}" if self.findings else title]
        for line in self.lines():
            lines.append(fill(line, WIDTH, initial_indent="  ", subsequent_indent="    "))
        return "\n".join(lines)

    def to_dict(self) -> Mapping[str, Any]:
        """All fields but the model, as they go into JSON."""
        parts = {name: getattr(self, name) for name in ("score", "loss", "before", "after")}
        return {
            "remedy": self.remedy,
            "gate": self.gate,
            "codes": list(dict.fromkeys(finding.code for finding in self.findings)),
            "change": self.text_of_change or None,
            "reason": self.reason,
            **{name: None if part is None else dict(part.to_dict()) for name, part in parts.items()},
            "rows": self.rows,
            "unexamined": self.unexamined,
        }

    def __repr__(self) -> str:
        return self.text()
