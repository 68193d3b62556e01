"""How rows of each group are divided among the experts of a gate: the cells of a heat map."""

from dataclasses import dataclass

import numpy as np

from moebius.lab.explorer.row_table import RowTable

SHADES = 10


@dataclass(frozen=True)
class GroupCell:
    """Rows of a group at an expert.

    Arguments:
        group, expert: their numbers.
        rows: rows of the group whose largest weight the expert has.
        weight: its mean weight over the rows of the group; NaN without rows.
        shade: 0 … 10 by the mean weight, of which 1 or more is the darkest.
    """

    group: int
    expert: int
    rows: int
    weight: float
    shade: int


def group_cells(table: RowTable, gate: str) -> list[tuple[str, int, list[GroupCell]]]:
    """Name, number of rows and cells of each group that has rows which reached the gate.

    Arguments:
        table: of rows.
        gate: its name.
    """
    columns = table.gates[gate]
    top, lines = columns.top, []
    for number, name in enumerate(table.groups.names):
        inside = (table.groups.numbers == number) & (top >= 0)
        count = int(inside.sum())
        if not count:
            continue
        means = columns.weights[inside].mean(0)
        wins = np.bincount(top[inside], minlength=columns.place.count)
        cells = [
            GroupCell(number, expert, int(wins[expert]), float(mean), round(SHADES * min(abs(float(mean)), 1.0)))
            for expert, mean in enumerate(means)
        ]
        lines.append((name, count, cells))
    return lines
