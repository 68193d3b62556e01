"""The groups that rows are filtered and counted by: the classes of the target, or quarters of its range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int

from moebius.lab.data.tables.columns import TargetColumn
from moebius.lab.predict.wording import number

QUARTERS = 4


@dataclass(frozen=True)
class Groups:
    """Rows by the value of their target.

    Arguments:
        noun: what the groups are, such as "class".
        names: of the groups.
        numbers: the group of each row; −1 for a row whose target is not known.
    """

    noun: str
    names: tuple[str, ...]
    numbers: Int[np.ndarray, " T"]


def group_rows(targets: Sequence[TargetColumn], labels: Sequence[Mapping[str, Any]]) -> Groups:
    """Group rows by the first target that has classes, or else by quarters of the first of numbers.

    A row with a class at each position has that of most.

    Arguments:
        targets: of the model.
        labels: of each row, by name of the target.

    Example:
        >>> group_rows([TargetColumn("y", ("a", "b"))], [{"y": "b"}, {}]).numbers.tolist()
        [1, -1]
        >>> group_rows([TargetColumn("y")], [{"y": float(value)} for value in range(8)]).names[0]
        'y 0 … 1.75'
    """
    target = next((target for target in targets if target.classes), targets[0])
    values = [label.get(target.name) for label in labels]
    if target.classes:
        places = {name: place for place, name in enumerate(target.classes)}
        texts = [next(iter(value), None) if isinstance(value, Mapping) else value for value in values]
        numbers = np.array([-1 if text is None else places.get(text, -1) for text in texts], dtype=np.int64)
        return Groups(target.name, tuple(map(str, target.classes)), numbers)
    figures = np.array([np.nan if value is None else float(value) for value in values])
    if not np.isfinite(figures).any():
        return Groups(target.name, (), np.full(len(figures), -1))
    edges = np.unique(np.quantile(figures[np.isfinite(figures)], np.linspace(0, 1, QUARTERS + 1)))
    if len(edges) < 2:
        edges = np.repeat(edges, 2)
    names = tuple(f"{target.name} {number(low)} … {number(high)}" for low, high in pairwise(edges.tolist()))
    places = np.clip(np.searchsorted(edges, figures, side="right") - 1, 0, len(names) - 1)
    return Groups(f"quarter of {target.name}", names, np.where(np.isfinite(figures), places, -1))
