"""The explorer of a model in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset
from moebius.lab.explorer.explorer import ROWS, Explorer
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.predict.subject import Subject
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.fit_rows import Names
from moebius.lab.training.outcome import Trained
from moebius.tasks._choice import TaskLike, as_task
from moebius.tasks._task import Task


def explore_model(
    model: Any,
    data: Any,
    *,
    task: TaskLike | None = None,
    classes: Sequence[str] | None = None,
    inputs: Names | None = None,
    target: Names | None = None,
    rows: int = ROWS,
    title: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Explorer:
    """The explorer of a model, or of the result of `mb.fit`.

    Arguments:
        model, data, task, classes, inputs, target, rows: as for `mb.explore`.
        title: of the page; None for the name of the model's class.
        progress: is called with the number of rows that are done, and that of all.

    Raises:
        ArgumentError: model, data and task do not fit, or the model is not on the CPU.
    """
    names = data.classes if classes is None and isinstance(data, Dataset) and data.columns is None else classes
    subject = Subject.of(model, task, names or None)
    module: nn.Module = subject.model
    device = next((str(parameter.device) for parameter in module.parameters()), "cpu")
    if device != "cpu":
        raise ArgumentError("model", "needs to be on the CPU", device, "mb.explore(model.cpu(), data)")
    title = title or type(module).__name__
    if isinstance(data, Dataset):
        source = RowSource(subject, data.test.to("cpu"), "test", data.domains, data.columns)
    else:
        split = build_dataset(module, _task_of(model, task), data, 0.0, 0, None, inputs, target).train
        source = RowSource(subject, split.to("cpu"), "row")
    return Explorer(source, title, rows, progress)


def _task_of(model: Any, task: TaskLike | None) -> Task:
    if task is None and isinstance(model, Trained) and model.origin is not None:
        return model.origin.task
    return as_task("classification" if task is None else task)
