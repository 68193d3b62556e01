"""What each expert of a gate does over all rows of a table."""

from dataclasses import dataclass

import numpy as np

from moebius.lab.explorer.row_table import GateColumns, RowTable

# Colours that can be told apart; experts beyond them share the last.
COLOURS = 12


@dataclass(frozen=True)
class ExpertSummary:
    """An expert over all rows.

    Arguments:
        expert: its number at the gate.
        name: such as that of the stage that trained it; None without.
        colour: number of its colour, 0 … 11; 11 is shared where there are more than twelve experts.
        rows: those whose largest weight it has.
        weight: mean over the rows that reached the gate.
        right: share of its rows that the model has right; None where rows are not right or wrong.
        loss: mean loss of the model over all rows where this expert alone answers them; None where that is not known.
    """

    expert: int
    name: str | None
    colour: int
    rows: int
    weight: float
    right: float | None
    loss: float | None


def summarise_experts(table: RowTable, gate: str, names: dict[str, str]) -> list[ExpertSummary]:
    """The experts of a gate, in the order of their numbers.

    Arguments:
        table: of rows.
        gate: its name.
        names: module path of an expert → its name.
    """
    columns = table.gates[gate]
    top, right = columns.top, table.frame["right"].to_numpy(dtype=float)
    reached = top >= 0
    colours = expert_colours(columns)
    summaries = []
    for expert, path in enumerate(columns.place.experts):
        won = top == expert
        known_right = right[won][np.isfinite(right[won])]
        losses = None if columns.losses is None else columns.losses[:, expert][np.isfinite(columns.losses[:, expert])]
        summaries.append(
            ExpertSummary(
                expert,
                names.get(path),
                colours[expert],
                int(won.sum()),
                float(columns.weights[reached, expert].mean()) if reached.any() else 0.0,
                float(known_right.mean()) if len(known_right) else None,
                float(losses.mean()) if losses is not None and len(losses) else None,
            )
        )
    return summaries


def expert_colours(columns: GateColumns) -> list[int]:
    """The number of each expert's colour: of more experts than colours, those that win most rows have their own."""
    count = columns.place.count
    if count <= COLOURS:
        return list(range(count))
    wins = np.bincount(columns.top[columns.top >= 0], minlength=count)
    order = np.argsort(-wins, kind="stable")
    colours = [COLOURS - 1] * count
    for place, expert in enumerate(order[: COLOURS - 1].tolist()):
        colours[expert] = place
    return colours
