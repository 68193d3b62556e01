"""What a task reads in outputs, under the names of the targets and in their units."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.lab.data.tables.columns import TargetColumn
from moebius.tasks._task import Task
from moebius.tasks.classification import Classification
from moebius.tasks.multi_label import MultiLabel
from moebius.tasks.multi_task import MultiTask
from moebius.tasks.tokens import Tokens

# Names of what tasks give in the plural.
WORDS = {"probabilities": "probability"}

# Name of a target → what is said of it → one value for each row.
Answers = dict[str, dict[str, np.ndarray]]


def read_answers(task: Task, targets: Sequence[TargetColumn], output: Any) -> Answers:
    """What the outputs say of each target: "prediction", and what else the task reads, such as "probability".

    Names of classes, or numbers in the units of the table.

    Arguments:
        task: as the model's outputs are to be read.
        targets: in the order of the outputs; by name for several tasks.
        output: of all rows.
    """
    by_name = {target.name: target for target in targets}
    if isinstance(task, MultiTask):
        return {
            name: _of_target(by_name[name], _read(each, output[name]), isinstance(each, Tokens))
            for name, each in task.tasks.items()
        }
    read = _read(task, output)
    if len(by_name) == 1 and not isinstance(task, MultiLabel):
        return {targets[0].name: _of_target(targets[0], read, isinstance(task, Tokens))}
    # One column of each array for each of several targets, in their order.
    columns = [
        {key: values[:, place] for key, values in read.items() if values.ndim == 2} for place in range(len(targets))
    ]
    return {target.name: _of_target(target, of_target) for target, of_target in zip(targets, columns, strict=True)}


def top_classes(task: Task, classes: Sequence[str], output: Any, most: int) -> list[list[tuple[str, float]]] | None:
    """The most probable classes of each row with their probabilities, best first; None for another task."""
    if not isinstance(task, Classification):
        return None
    values, labels = task.probabilities(output).topk(min(most, output.shape[-1]))
    return [
        [(str(classes[label]), value) for label, value in zip(of_row, values_of_row, strict=True)]
        for of_row, values_of_row in zip(labels.tolist(), values.tolist(), strict=True)
    ]


def guess_targets(task: Task, output: Any, names: Sequence[str] | None = None) -> list[TargetColumn]:
    """Targets for a model whose header names none: classes, and columns of numbers, are called by their numbers.

    Arguments:
        task: what is learned.
        output: of the model.
        names: of the classes, or of the quantities or labels.
    """
    if isinstance(task, MultiTask):
        pairs = ((name, guess_targets(each, output[name])[0]) for name, each in task.tasks.items())
        return [TargetColumn(name, target.classes) for name, target in pairs]
    if isinstance(task, Classification | Tokens):
        count = output.shape[1] if isinstance(task, Tokens) and task.channels == "first" else output.shape[-1]
        return [TargetColumn("class", tuple(names or map(str, range(count))))]
    prediction = next(iter(task.predict(output).values()))
    count = 1 if prediction.ndim == 1 else prediction.shape[1]
    several = [f"y{number}" for number in range(count)] if count > 1 else ["y"]
    classes = ("no", "yes") if isinstance(task, MultiLabel) else ()
    return [TargetColumn(name, classes) for name in names or several]


def label_values(targets: Sequence[TargetColumn], label: Any) -> dict[str, np.ndarray]:
    """Encoded targets under the names of the targets and in their units; None for a row that has none.

    Arguments:
        targets: as for `read_answers`.
        label: (T,), (T, D), or by name.
    """
    if isinstance(label, Mapping):
        columns = {target.name: label[target.name] for target in targets}
    elif len(targets) == 1 and (label.ndim == 1 or targets[0].classes):
        columns = {targets[0].name: label}
    else:
        columns = {target.name: label[:, place] for place, target in enumerate(targets)}
    return {target.name: _decode_label(target, columns[target.name]) for target in targets}


def _decode_label(target: TargetColumn, values: Tensor) -> np.ndarray:
    if values.ndim > 1:  # a class at each position
        flat = values.flatten(1)
        return np.array([_shares(target, row[row >= 0].numpy()) for row in flat] + [None], dtype=object)[:-1]
    is_absent = values.isnan() if values.is_floating_point() else values < 0
    filled = torch.where(is_absent, torch.zeros_like(values), values)
    decoded = target.decode(filled.long().numpy() if target.classes else filled.float().numpy()).astype(object)
    decoded[is_absent.numpy()] = None
    return decoded


def _read(task: Task, output: Tensor) -> dict[str, np.ndarray]:
    return {name: values.float().numpy() for name, values in task.predict(output.float()).items()}


def _of_target(
    target: TargetColumn, read: Mapping[str, np.ndarray], by_position: bool = False
) -> dict[str, np.ndarray]:
    if by_position:
        return _of_positions(target, read)
    predictions = read["predictions"]
    decoded = target.decode(predictions.astype(np.int64) if target.classes else predictions)
    further = {
        WORDS.get(key, key): _in_units(target, key, values) for key, values in read.items() if key != "predictions"
    }
    return {"prediction": decoded, **further}


def _of_positions(target: TargetColumn, read: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The share of the positions of each class, the most frequent first; and the mean probability."""
    rows = read["predictions"].astype(np.int64).reshape(len(read["predictions"]), -1)
    shares = np.array([_shares(target, row) for row in rows] + [None], dtype=object)[:-1]
    prediction = np.array([next(iter(each)) for each in shares], dtype=object)
    return {
        "prediction": prediction,
        "shares": shares,
        "probability": read["probabilities"].reshape(len(rows), -1).mean(1),
    }


def _shares(target: TargetColumn, classes: np.ndarray) -> dict[str, float]:
    numbers, counts = np.unique(classes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {target.classes[numbers[place]]: float(counts[place] / len(classes)) for place in order}


def _in_units(target: TargetColumn, key: str, values: np.ndarray) -> np.ndarray:
    """Further figures of numbers in the units of the table: a scale has no mean to add, a quantile has."""
    if target.classes:
        return values
    return values * target.scale if key == "scale" else target.decode(values)
