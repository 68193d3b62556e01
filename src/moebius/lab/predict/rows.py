"""Predictions of a finished run for rows of a table."""

from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from moebius.core.recording import Log
from moebius.kit.commands import command
from moebius.kit.errors import StudyError
from moebius.lab.data.tables.columns import TableColumns, TargetColumn
from moebius.lab.predict.answers import read_answers
from moebius.lab.predict.forward import computable, context_of_table, run_rows
from moebius.lab.predict.images import load_run
from moebius.tasks._choice import as_task
from moebius.tasks._task import Task


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
    columns, x, context = encode_rows(Path(run), model, data, rows, domain)
    with computable(Path(run)):
        output, log = run_rows(model, x, context, data["precision"])
        return frame_of(as_task(data["task"]).for_model(model), columns.targets, output, log, rows.index)


def encode_rows(
    run: Path, model: nn.Module, data: dict[str, Any], rows: pd.DataFrame, domain: str | None
) -> tuple[TableColumns, Any, Any]:
    """The columns that a run has learned, the rows as numbers, and their context.

    Raises:
        StudyError, DataError, ArgumentError: as `predict_rows`.
    """
    if "columns" not in data:
        rule = f"{run}: was trained on images, and not on a table"
        raise StudyError(rule, command("moebius", "predict", run, "PICTURE.png"))
    columns = TableColumns.from_values(data["columns"])
    context = context_of_table(model, rows, columns.domain, domain, data["domains"])
    return columns, columns.encode(rows), context


def frame_of(task: Task, targets: tuple[TargetColumn, ...], output: Any, log: Log, index: pd.Index) -> pd.DataFrame:
    """The columns of `predict_rows`."""
    answers = read_answers(task, targets, output)
    named = {
        name if key == "prediction" else f"{name} {key}": values
        for name, of_target in answers.items()
        for key, values in of_target.items()
    }
    result = pd.DataFrame(named, index=index)
    calls = [call for call in log.values() if call[0].rows is None and len(call[0].weights) == len(index)]
    if len(calls) == 1:
        weights = calls[0][-1].weights.float().numpy()
        result = result.assign(expert=weights.argmax(1), weight=weights.max(1))
    return result
