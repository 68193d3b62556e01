"""From a DataFrame and what a recipe says of it to a `Table`; wrong columns are refused."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from moebius.kit.errors import DataError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.tables.column_types import find_categories, find_target_type, is_numeric, read_numbers
from moebius.lab.data.tables.hold_out import HoldOut
from moebius.lab.data.tables.table import Table, TableOptions


def make_table(frame: pd.DataFrame, options: TableOptions, where: str) -> Table:
    """The table that a recipe describes.

    Arguments:
        frame: all columns and rows, with different names as text.
        options: what the columns are for.
        where: name of the table, for error messages.

    Raises:
        DataError: a column is missing, or holds what it cannot.

    Example:
        >>> frame = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "kind": ["a", "b", "a", "b"]})
        >>> make_table(frame, TableOptions("kind", test=0.5), "sizes").target_types
        ('classes',)
    """
    cells: Any = frame  # pyright takes a column for one of several types
    names = [str(name) for name in frame.columns]
    _check_names("target", options.targets, names, where)
    for argument in ("group", "time", "domain"):
        _check_names(argument, [getattr(options, argument)], names, where)
    for argument in ("columns", "drop", "categories", "numbers"):
        _check_names(argument, getattr(options, argument) or (), names, where)
    # The domain may be a column that the model sees, too: where `columns` names it.
    others = {*options.targets, options.group, options.time, *options.drop}
    others |= {options.domain} if options.columns is None else set()
    kept = [name for name in (names if options.columns is None else options.columns) if name not in others]
    if not kept:
        fix = f"columns: [{', '.join(name for name in names if name not in others) or 'A COLUMN'}]"
        raise DataError(f"{where}: no column is left for the model to see", fix)
    targets = {name: cells[name] for name in options.targets}
    _check_missing(targets, where)
    types = {name: options.target_types.get(name) or find_target_type(targets[name].dropna()) for name in targets}
    for name in (name for name in targets if types[name] == "numbers"):
        targets[name] = pd.Series(read_numbers(targets[name], where), frame.index, name=name)
    features = cells[kept]
    categories = find_categories(features, options.categories, options.numbers, where)
    groups = None if options.group is None else pd.factorize(_complete(cells[options.group], where))[0]
    times = None if options.time is None else _read_times(_complete(cells[options.time], where), where)
    domain = None if options.domain is None else _complete(cells[options.domain], where)
    hold_out = HoldOut(groups, times, options.seed)
    return Table(
        features, categories, pd.DataFrame(targets), tuple(types.values()), hold_out, options.test, where, domain
    )


def _check_missing(targets: dict[str, pd.Series], where: str) -> None:
    """Whether a row has a target: the only one, or some of several.

    Raises:
        DataError: rows have none.
    """
    is_missing = np.all([column.isna() for column in targets.values()], axis=0)
    if is_missing.any():
        names = " and ".join(map(repr, targets))
        rule = f"the target {names} is missing in {int(is_missing.sum())} rows, first in row {int(is_missing.argmax())}"
        raise DataError(f"{where}: {rule}", "path: A COPY OF THE FILE without these rows")


def _check_names(argument: str, chosen: Iterable[str | None], names: list[str], where: str) -> None:
    for name in chosen:
        if name is not None and name not in names:
            fix = f"{argument}: {did_you_mean(name, names)}"
            raise DataError(f"{where}: {argument} names {name!r}, and no column is called so", fix)


def _complete(column: pd.Series, where: str) -> pd.Series:
    """A column by which rows are split, if no value is missing."""
    if column.isna().any():
        row = int(column.isna().to_numpy().argmax())
        rule = f"column {column.name!r}, by which rows are told apart, is missing in row {row}"
        raise DataError(f"{where}: {rule}", "path: A COPY OF THE FILE without these rows, or name another column")
    return column


def _read_times(column: pd.Series, where: str) -> np.ndarray:
    """The times of a column as numbers: numbers stay, and dates and their text become nanoseconds."""
    if is_numeric(column):
        return column.to_numpy()
    try:
        # In other formats a day may stand before or after its month.
        times = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError, OverflowError) as error:
        rule = f"column {column.name!r} holds neither numbers nor dates ({error})"
        raise DataError(f"{where}: {rule}", "write dates as 2024-12-31 in a copy of the file") from error
    return np.asarray(times.dt.tz_localize(None)).astype("datetime64[ns]").astype(np.int64)
