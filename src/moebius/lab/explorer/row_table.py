"""What the model made of many rows: a line of figures for each row, and what each gate did."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from moebius.lab.data.tables.columns import TargetColumn
from moebius.lab.explorer.groups import Groups, group_rows
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.predict.explained_rows import ExplainedRows
from moebius.lab.predict.explanation import Explanation
from moebius.lab.predict.wording import answer_text, label_text
from moebius.lab.report.frames import Frame, make_frame
from moebius.lab.training.gate_places import GatePlace

# Rows of one pass.
PIECE = 256


@dataclass(frozen=True)
class GateColumns:
    """What a gate did with the rows of a table.

    Arguments:
        place: the gate.
        weights: NaN for rows that did not reach it.
        scores: what it ranked the experts by; likewise.
        losses: of the model's answer where the gate sends the row to one expert alone; None where that is not computed.
        is_distribution: whether the scores are probabilities.
    """

    place: GatePlace
    weights: Float[np.ndarray, "T E"]
    scores: Float[np.ndarray, "T E"]
    losses: Float[np.ndarray, "T E"] | None
    is_distribution: bool

    @property
    def top(self) -> Int[np.ndarray, " T"]:
        """The expert with each row's largest weight, the first of several; −1 for rows that did not reach the gate."""
        reached = ~np.isnan(self.weights).any(axis=1)
        return np.where(reached, np.nan_to_num(self.weights).argmax(axis=1), -1)


@dataclass(frozen=True)
class RowTable:
    """Figures of many rows.

    Arguments:
        frame: a line for each row: `row`, its position in the split; `prediction` and `label`, as text; `right`, 1, 0
            or NaN; `score`, of answers that are neither right nor wrong; `confidence`, the probability of the predicted
            class; `error`, of a number that is predicted; `loss` and `regret`; `domain`, its number. NaN where
            something is not known.
        gates: by name, the outer ones first.
        groups: of the rows, by class or by quarter of the target.
    """

    frame: Frame
    gates: dict[str, GateColumns]
    groups: Groups

    def __len__(self) -> int:
        return len(self.frame)


def tabulate_rows(source: RowSource, numbers: Sequence[int], progress: Callable[[int], None] | None = None) -> RowTable:
    """Run the model over rows, along every route, and keep the figures.

    Arguments:
        source: the rows.
        numbers: positions of those to run.
        progress: is called with the number of rows that are done.
    """
    lines: list[dict[str, Any]] = []
    targets: tuple[TargetColumn, ...] = ()
    pieces: dict[str, list[GateColumns]] = {}
    labels: list[dict[str, Any]] = []
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE]
        rows = source.explain(piece)
        for explanation, number in zip(rows, piece, strict=True):
            lines.append(_line(explanation, number, int(source.split.domains[number])))
            labels.append(dict(explanation.label or {}))
        targets = rows.passes.targets
        for table in rows.passes.gates:
            if table.place.count > 1:
                losses = _losses(rows, table.place)
                columns = table.weights.numpy(), table.scores.numpy(), losses, table.is_distribution
                pieces.setdefault(table.place.name, []).append(GateColumns(table.place, *columns))
        if progress is not None:
            progress(min(start + PIECE, len(numbers)))
    return RowTable(
        make_frame(lines), {name: _join(parts) for name, parts in pieces.items()}, group_rows(targets, labels)
    )


def _line(explanation: Explanation, number: int, domain: int) -> dict[str, Any]:
    answer = next(iter(explanation.answer.values()))
    is_only = len(explanation.answer) == 1
    label = explanation.label
    truth = next(iter(label.values())) if label and is_only else None
    is_number = isinstance(truth, float) and isinstance(answer["prediction"], float)
    is_graded = explanation.score is not None and explanation.score_name == "accuracy"
    return {
        "row": number,
        "prediction": answer_text(explanation.answer) if not explanation.top else explanation.top[0][0],
        "label": "" if label is None else label_text(label),
        "right": _figure(explanation.score) if is_graded else math.nan,
        "score": math.nan if is_graded else _figure(explanation.score),
        "confidence": _figure(answer.get("probability")) if is_only else math.nan,
        "error": abs(answer["prediction"] - truth) if is_number and truth is not None else math.nan,
        "loss": _figure(explanation.loss),
        "regret": _figure(explanation.regret),
        "domain": domain,
    }


def _figure(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _losses(rows: ExplainedRows, place: GatePlace) -> Float[np.ndarray, "T E"] | None:
    outcomes = [rows.passes.sent.get((place.name, expert)) for expert in range(place.count)]
    losses = [None if outcome is None else outcome.losses for outcome in outcomes]
    if any(values is None for values in losses):
        return None
    return np.array(losses, dtype=np.float32).T


def _join(parts: Sequence[GateColumns]) -> GateColumns:
    losses = [part.losses for part in parts if part.losses is not None]
    return GateColumns(
        parts[0].place,
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate(losses) if len(losses) == len(parts) else None,
        all(part.is_distribution for part in parts),
    )
