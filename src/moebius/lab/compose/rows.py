"""The rows that networks are composed on: in any form, and divided."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.nested import tensors_of
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.fit_rows import Names, read_rows
from moebius.tasks._choice import TaskLike, as_task
from moebius.tasks._task import Task
from moebius.tasks.multi_task import MultiTask
from moebius.tasks.tokens import Tokens

# The share of the rows that judge, where rows are held out.
JUDGED = 0.5
# On either side.
FEWEST = 30
FOLDS = 5


@dataclass(frozen=True)
class Plan:
    """Which rows ways are fitted to, and which they are judged on.

    Arguments:
        kind: held_out, in_sample or cross_fit.
        folds: for each: the rows that are fitted, and those that are judged. In all folds together a row is judged at
            most once.
    """

    kind: str
    folds: tuple[tuple[Tensor, Tensor], ...]

    @property
    def judged(self) -> Tensor:
        """The rows that are judged, in the order of the folds."""
        return torch.cat([judged for _, judged in self.folds])

    def text(self, count: int) -> str:
        """The plan in words.

        Arguments:
            count: of all rows.
        """
        if self.kind == "cross_fit":
            return f"{count:,} rows, each judged by ways that were fitted to the others ({len(self.folds)} folds)"
        if self.kind == "in_sample":
            return f"{count:,} rows, which ways were fitted to as well: scores of fitted ways are too high"
        fitted, judged = self.folds[0]
        return f"{len(judged):,} rows that nothing was fitted to; ways were fitted to {len(fitted):,} others"


def plan_rows(count: int, rows: Any, seed: int) -> Plan:
    """The division of so many rows.

    Arguments:
        count: of all rows.
        rows: "held_out", a half each; "in_sample"; "cross_fit", "cross_fit:5" or {"cross_fit": 5}, with 5 folds or
            more.
        seed: of the order.

    Raises:
        ArgumentError: it is none of these, or the rows are too few.
    """
    kind, folds = _parse(rows)
    if count < 2 * FEWEST:
        rule = f"needs {2 * FEWEST} rows at least, {FEWEST} to fit and {FEWEST} to judge"
        raise ArgumentError("data", rule, count, "mb.compose(models, (more_x, more_y))")
    order = torch.from_numpy(np.random.default_rng([seed, 5]).permutation(count))
    if kind == "in_sample":
        return Plan(kind, ((order, order),))
    if kind == "held_out":
        judged = round(JUDGED * count)
        return Plan(kind, ((order[judged:].sort().values, order[:judged].sort().values),))
    pieces = order.chunk(folds)
    pairs = [
        (torch.cat([piece for place, piece in enumerate(pieces) if place != number]).sort().values, pieces[number])
        for number in range(len(pieces))
    ]
    return Plan(kind, tuple(pairs))


def _parse(rows: Any) -> tuple[str, int]:
    fix = 'rows="held_out", rows="in_sample" or rows="cross_fit:5"'
    if isinstance(rows, Mapping) and len(rows) == 1:
        rows = ":".join(str(value) for value in next(iter(rows.items())))
    kind, _, folds = str(rows).partition(":")
    if kind in ("held_out", "in_sample") and not folds:
        return kind, 1
    if kind != "cross_fit" or (folds and not folds.isdigit()):
        raise ArgumentError("rows", "needs held_out, in_sample or cross_fit with a number of folds", rows, fix)
    number = int(folds) if folds else FOLDS
    if number < FOLDS:
        raise ArgumentError("rows", f"needs {FOLDS} folds at least", number, f'rows="cross_fit:{FOLDS}"')
    return kind, number


def read_split(
    data: Any, inputs: Names | None = None, target: Names | None = None, scale: str = "unit", name: str = "data"
) -> Split:
    """Rows in any form that `mb.fit` takes, as a split; of a data set its held-out rows, or else its test rows.

    Raises:
        ArgumentError: they are in another form, or not one tensor of inputs.
    """
    if isinstance(data, Dataset):
        split = data.test if data.validation is None else data.validation
    elif isinstance(data, Split):
        split = data
    else:
        x, y = read_rows(name, data, inputs, target)
        count = len(next(tensors_of(y)))
        split = Split(x, y, torch.zeros(count, dtype=torch.long))
        split = Dataset(split, None, split, (), (), "").with_scale(scale).train
    if not isinstance(split.images, Tensor):
        rule = "needs one tensor of inputs, which all networks read"
        raise ArgumentError(name, rule, type(split.images).__name__, f"{name}=(x, y)")
    return split


def infer_task(task: TaskLike | None, labels: Any) -> Task:
    """The task that is meant, or the one that the targets are of: whole numbers are classes, others quantities.

    Raises:
        ArgumentError: models of this task are not composed.
    """
    if task is None:
        if not isinstance(labels, Tensor) or not labels.is_floating_point():
            task = "classification"
        else:
            are_labels = labels.ndim == 2 and bool(((labels == 0) | (labels == 1) | labels.isnan()).all())
            task = "multi_label" if are_labels else "regression"
    learned = as_task(task)
    if isinstance(learned, Tokens | MultiTask):
        rule = "needs a task with one output for each row"
        fix = "mb.Mixture(gate, networks), trained by mb.fit"
        raise ArgumentError("task", rule, type(learned).__name__, fix)
    return learned.for_data(labels)
