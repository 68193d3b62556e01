"""Data for a task: whether their targets are of its form, and how many outputs a model needs for them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.data.split import Dataset, Split
from moebius.tasks._task import Task
from moebius.tasks.multi_task import MultiTask
from moebius.tasks.tokens import Tokens


def with_task(data: Dataset, task: Task) -> Dataset:
    """The data with targets as the task takes them.

    A task of several takes the targets of its names. Another one takes the only target; where it learns numbers, also
    several columns of numbers, as (T, D), and where it learns labels, columns of two classes.

    Arguments:
        data: images, or a table.
        task: what is learned.

    Raises:
        StudyError: the targets are of another form.
        ArgumentError: they break a rule of the task.

    Example:
        >>> from moebius.lab.data.sources.sklearn import Sklearn
        >>> from moebius.lab.data.load_sets import load_sets
        >>> from moebius.tasks import Regression
        >>> data = with_task(load_sets([Sklearn("diabetes")], 8), Regression())
        >>> data.train.labels.dtype, data.facts["classes"]
        (torch.float32, 1)
    """
    fitted = _fit(data, task)
    if task.target_type != "classes" or fitted.train.labels.ndim == 1:
        counts, labels = fitted.outputs, fitted.train.labels
        output = torch.zeros(1, counts) if isinstance(counts, int) else None
        if isinstance(counts, Mapping):
            output = {name: torch.zeros(1, count) for name, count in counts.items()}
        try:
            task.check(output, labels)
        except ArgumentError as error:
            raise error.inside("task") from None
    return fitted


def _fit(data: Dataset, task: Task) -> Dataset:
    targets = data.targets or {"class": data.classes}
    if isinstance(task, MultiTask):
        return _with_several(data, targets, task)
    if task.target_type == "any" and not isinstance(data.train.labels, Mapping):
        return replace(data, outputs=task.count_outputs(_names(targets)))
    if task.target_type == "labels":
        for name, names in targets.items():
            if len(names) != 2:
                fix = f"a column of two classes, such as no and yes, or target_type: {{{name}: classes}}"
                raise _unfit(name, names, "labels, columns of two classes", fix)
    elif task.target_type == "classes":
        if len(targets) > 1:
            rule = f"the targets {', '.join(targets)} are several, and the task is one of a single target"
            fix = f"task: {{kind: multi_task, tasks: {{{', '.join(f'{name}: …' for name in targets)}}}}}"
            raise StudyError(f"data.sets: {rule}", fix)
        _check_type(*next(iter(targets.items())), task)
        labels = data.train.labels
        by_position, needs_position = isinstance(labels, Tensor) and labels.ndim > 1, isinstance(task, Tokens)
        if by_position != needs_position:
            rule = "a class for each pixel" if by_position else "one class"
            needed = "a class for each position" if needs_position else "one class"
            fix = "task: {kind: tokens, channels: first}" if by_position else "task: classification"
            raise StudyError(f"data.sets: rows have {rule}, and the task needs {needed} of a row", fix)
        return replace(data, outputs=task.count_outputs(data.classes))
    else:
        for name, names in targets.items():
            _check_type(name, names, task)
    return replace(
        _map_labels(data, lambda labels: _as_numbers(labels, task)),
        classes=(),
        outputs=task.count_outputs(tuple(targets)),
    )


def _with_several(data: Dataset, targets: Mapping[str, tuple[str, ...]], task: MultiTask) -> Dataset:
    for name, each in task.tasks.items():
        if name not in targets:
            rule = f"needs a target of each name, and the data have {', '.join(targets)}"
            raise StudyError(f"task.tasks.{name}: {rule}", f"target: [{', '.join(task.tasks)}]    # in data.sets")
        _check_type(name, targets[name], each)
    kept = {name: targets[name] for name in task.tasks}
    outputs = {name: each.count_outputs(kept[name]) for name, each in task.tasks.items()}

    def select(labels: Any) -> dict[str, Tensor]:
        labels = labels if isinstance(labels, Mapping) else {next(iter(targets)): labels}
        return {name: labels[name] for name in kept}

    return replace(_map_labels(data, select), classes=(), targets=kept, outputs=outputs)


def _check_type(name: str, names: tuple[str, ...], task: Task) -> None:
    """Whether a target is of classes, or of numbers, as the task wants."""
    is_numbers = names == (name,)
    if task.target_type == "classes" and is_numbers:
        fix = f"task: regression    # or in data.sets target_type: {{{name}: classes}}"
        raise StudyError(f"data.sets: the target {name!r} is numbers, and the task learns classes", fix)
    if task.target_type == "numbers" and not is_numbers:
        fix = f"task: classification    # or for a column of numbers target_type: {{{name}: numbers}}"
        raise _unfit(name, names, "numbers", fix)


def _unfit(name: str, names: tuple[str, ...], need: str, fix: str) -> StudyError:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    content = "is numbers" if names == (name,) else f"has {len(names)} classes ({shown})"
    rule = f"the target {name!r} {content}, and the task needs {need}"
    return StudyError(f"data.sets: {rule}", fix)


def _as_numbers(labels: Any, task: Task) -> Tensor:
    """Targets of one column or several as float32; (T,) only for numbers of a single column."""
    columns = [*labels.values()] if isinstance(labels, Mapping) else [labels]
    numbers = [
        column if column.is_floating_point() else torch.where(column < 0, torch.nan, column.float())
        for column in columns
    ]
    return numbers[0] if len(numbers) == 1 and task.target_type == "numbers" else torch.stack(numbers, 1)


def _map_labels(data: Dataset, change: Any) -> Dataset:
    def changed(split: Split) -> Split:
        return replace(split, labels=change(split.labels))

    validation = None if data.validation is None else changed(data.validation)
    return replace(data, train=changed(data.train), validation=validation, test=changed(data.test))


def _names(targets: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return next(iter(targets.values()))
