"""`RowQuery`: which rows are asked for, in which order, and the page of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlencode

import numpy as np
from jaxtyping import Int

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.explorer.row_table import RowTable

PAGE = 60
# Name of an order → column, and whether its largest values come first.
ORDERS = {
    "row": ("row", False),
    "largest loss": ("loss", True),
    "smallest loss": ("loss", False),
    "largest regret": ("regret", True),
    "least confident": ("confidence", False),
    "most confident": ("confidence", True),
    "largest error": ("error", True),
}
ANSWERS = ("right", "wrong")


@dataclass(frozen=True)
class RowQuery:
    """What is asked of the rows.

    Arguments:
        gate: whose experts are meant; empty for the first.
        group: number of a group; None for all.
        expert: that has the largest weight; None for all.
        domain: number of a data set; None for all.
        answer: "right", "wrong", or empty.
        confidence_from, confidence_to: bounds of the confidence.
        loss_from, error_from, regret_from: least values.
        order: one of `ORDERS`.
        page: from 0.
    """

    gate: str = ""
    group: int | None = None
    expert: int | None = None
    domain: int | None = None
    answer: str = ""
    confidence_from: float | None = None
    confidence_to: float | None = None
    loss_from: float | None = None
    error_from: float | None = None
    regret_from: float | None = None
    order: str = "row"
    page: int = 0

    @classmethod
    def read(cls, values: Mapping[str, str]) -> "RowQuery":
        """The query of the fields of a form; empty and further ones are not read.

        Raises:
            ArgumentError: a field holds text in the place of a number, or no such order.

        Example:
            >>> RowQuery.read({"expert": "3", "loss_from": "", "order": "largest loss"})
            RowQuery(gate='', group=None, expert=3, ... order='largest loss', page=0)
        """
        texts = {item.name: values[item.name].strip() for item in fields(cls) if values.get(item.name, "").strip()}
        taken: dict[str, str | int | float] = {}
        for name, text in texts.items():
            if name in ("gate", "answer", "order"):
                taken[name] = text
            elif name in ("group", "expert", "domain", "page"):
                if not text.isascii() or not text.isdigit():
                    raise ArgumentError(name, "needs a whole number of at least 0", text, f"{name}=0")
                taken[name] = int(text[:9])
            else:
                taken[name] = _number(name, text)
        for name, choices in (("order", [*ORDERS]), ("answer", [*ANSWERS])):
            if name in taken and taken[name] not in choices:
                fix = did_you_mean(str(taken[name]), choices)
                raise ArgumentError(name, f"needs one of {', '.join(choices)}", taken[name], fix)
        return cls(**taken)  # type: ignore[arg-type]

    def text(self, **changes: object) -> str:
        """The query as a part of an address, with some values changed; those that say nothing are left out."""
        values = {**vars(self), **changes}
        return urlencode({name: value for name, value in values.items() if value not in (None, "", 0) or value == 0})

    def places(self, table: RowTable) -> Int[np.ndarray, " rows"]:
        """Positions in the table of all rows that are asked for, in order.

        Raises:
            ArgumentError: the table has no such gate.
        """
        frame = table.frame
        keep = np.ones(len(frame), dtype=bool)
        if self.group is not None:
            keep &= table.groups.numbers == self.group
        if self.domain is not None:
            keep &= frame["domain"].to_numpy() == self.domain
        if self.expert is not None and table.gates:
            keep &= table.gates[self.gate_of(table)].top == self.expert
        if self.answer:
            keep &= frame["right"].to_numpy() == (1 if self.answer == "right" else 0)
        for name, least in (("confidence", self.confidence_from), ("loss", self.loss_from)):
            keep &= _at_least(frame[name].to_numpy(), least)
        for name, least in (("error", self.error_from), ("regret", self.regret_from)):
            keep &= _at_least(frame[name].to_numpy(), least)
        if self.confidence_to is not None:
            keep &= frame["confidence"].to_numpy() <= self.confidence_to
        places = np.flatnonzero(keep)
        column, falls = ORDERS[self.order]
        values = frame[column].to_numpy(dtype=float)[places]
        return places[np.argsort(-values if falls else values, kind="stable")]

    def gate_of(self, table: RowTable) -> str:
        """The name of the gate that is meant; empty where there is none.

        Raises:
            ArgumentError: the table has no such gate.
        """
        if self.gate and self.gate not in table.gates:
            raise ArgumentError("gate", "names no gate of the model", self.gate, did_you_mean(self.gate, table.gates))
        return self.gate or next(iter(table.gates), "")


def _number(name: str, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArgumentError(name, "needs a number", text, f"{name}=0.5")
    return value


def _at_least(values: np.ndarray, least: float | None) -> np.ndarray:
    return np.ones(len(values), dtype=bool) if least is None else values >= least
