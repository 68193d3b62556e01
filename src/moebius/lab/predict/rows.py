"""Predictions of a finished run for rows of a table."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from moebius.core.recording import record
from moebius.core.row_context import current_context, row_context
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.tables.columns import TableColumns, TargetColumn
from moebius.lab.predict.images import load_run
from moebius.lab.training.precision import autocast
from moebius.tasks._choice import as_task
from moebius.tasks._task import Task
from moebius.tasks.multi_label import MultiLabel
from moebius.tasks.multi_task import MultiTask

# Names of columns that tasks give in the plural.
WORDS = {"probabilities": "probability"}


def predict_rows(run: Path, rows: pd.DataFrame, domain: str | None = None) -> pd.DataFrame:
    """What a run that was trained on a table says of further rows.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.
        rows: with the columns that the model sees; other columns are not read.
        domain: of all rows, for gates that route by it; None for the column of domains of the table, where it has one.

    Returns:
        The index of `rows`, and for each target a column of its name: names of classes, or numbers in the units of the
        table. Further columns are what else the task reads, such as "TARGET probability"; and, where the model has a
        single outermost gate, "expert", which has the largest weight, and "weight".

    Raises:
        StudyError: the folder holds no finished run, or one that was trained on images.
        DataError: a column is missing, or holds text in the place of a number.
        ArgumentError: a domain is missing where a gate needs it, or unknown.

    Example:
        >>> rows = pd.DataFrame({"x": [0.2, 0.4]})
        >>> predict_rows(Path("runs/regimes/soft/seed-0"), rows)["y"]  # doctest: +SKIP

    Reference: ours.
    """
    model, data = load_run(Path(run))
    if "columns" not in data:
        rule = f"{run}: was trained on images, and not on a table"
        raise StudyError(rule, f"moebius predict {run} PICTURE.png")
    columns, task = TableColumns.from_values(data["columns"]), as_task(data["task"]).for_model(model)
    x, context = columns.encode(rows), current_context()
    if any("domain" in getattr(module, "context_keys", ()) for module in model.modules()):
        numbers = _domain_numbers(rows, columns.domain, domain, data["domains"])
        context = context.with_values({"domain": torch.from_numpy(numbers)})
    with torch.inference_mode(), record(model) as log, autocast(data["precision"]), row_context(context):
        output = model(x)
    result = pd.DataFrame(_named(task, columns, output), index=rows.index)
    calls = [call for call in log.values() if call[0].rows is None and len(call[0].weights) == len(rows)]
    if len(calls) == 1:
        weights = calls[0][-1].weights.float().numpy()
        result = result.assign(expert=weights.argmax(1), weight=weights.max(1))
    return result


def _read(task: Task, output: Tensor) -> dict[str, np.ndarray]:
    return {name: values.float().numpy() for name, values in task.predict(output.float()).items()}


def _named(task: Task, columns: TableColumns, output: Any) -> dict[str, np.ndarray]:
    """The columns that a task reads, under the names of the table's targets."""
    by_name = {target.name: target for target in columns.targets}
    if isinstance(task, MultiTask):
        named: dict[str, np.ndarray] = {}
        for name, each in task.tasks.items():
            named |= _of_target(by_name[name], _read(each, output[name]))
        return named
    read = _read(task, output)
    if len(by_name) == 1 and not isinstance(task, MultiLabel):
        return _of_target(columns.targets[0], read)
    # One column of each array for each of several targets, in their order.
    named = {}
    for place, target in enumerate(columns.targets):
        named |= _of_target(target, {key: values[:, place] for key, values in read.items() if values.ndim == 2})
    return named


def _of_target(target: TargetColumn, read: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    predictions = read["predictions"]
    decoded = target.decode(predictions.astype(np.int64) if target.classes else predictions)
    further = {
        f"{target.name} {WORDS.get(key, key)}": _in_units(target, key, values)
        for key, values in read.items()
        if key != "predictions"
    }
    return {target.name: decoded, **further}


def _in_units(target: TargetColumn, key: str, values: np.ndarray) -> np.ndarray:
    """Further figures of numbers in the units of the table: a scale has no mean to add, a quantile has."""
    if target.classes:
        return values
    return values * target.scale if key == "scale" else target.decode(values)


def _domain_numbers(rows: pd.DataFrame, column: str | None, domain: str | None, names: list[str]) -> np.ndarray:
    if domain is None and (column is None or column not in rows):
        rule = "must name the domain of the rows, because this run's gate routes by it"
        fix = f"--domain {shlex.quote(names[0])}" + f"    # or a column {column}" * bool(column)
        raise ArgumentError("domain", rule, None, fix)
    texts = [domain] * len(rows) if domain is not None else [str(value) for value in rows[column]]
    for text in texts:
        if text not in names:
            raise ArgumentError("domain", f"needs one of {', '.join(names)}", text, did_you_mean(text, names))
    return np.array([names.index(text) for text in texts], dtype=np.int64)
