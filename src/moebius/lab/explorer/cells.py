"""A row of numbers in words: the columns of a table in their units, or the numbers by their positions."""

import math

import torch
from torch import Tensor

from moebius.lab.data.nested import tensors_of
from moebius.lab.data.tables.columns import NumberColumn, TableColumns
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.predict.wording import number

# Numbers of a row without names that are shown.
MOST_CELLS = 64


def row_cells(source: RowSource, position: int) -> dict[str, str]:
    """Names and values of a row; a missing value is empty.

    Arguments:
        source: the rows.
        position: of the row.
    """
    if source.columns is not None and isinstance(source.split.images, Tensor):
        return table_cells(source.columns, source.split.images[position])
    tensors = [tensor[position].flatten() for tensor in tensors_of(source.split.images)]
    values = torch.cat([tensor.double() for tensor in tensors])
    return {f"x{place}": number(value) for place, value in enumerate(values[:MOST_CELLS].tolist())}


def table_cells(columns: TableColumns, row: Tensor) -> dict[str, str]:
    """The columns of an encoded row in their own units.

    Arguments:
        columns: that it was encoded with.
        row: (features,).

    Example:
        >>> from moebius.lab.data.tables.columns import CategoryColumn, NumberColumn, TargetColumn
        >>> age, color = NumberColumn("age", 40.0, 40.0, 10.0, False), CategoryColumn("color", ("blue", "red"))
        >>> table_cells(TableColumns((age,), (color,), (TargetColumn("y"),), "t"), torch.tensor([0.5, 2.0]))
        {'age': '45', 'color': 'red'}
    """
    values = row.tolist()
    numbers, categories = len(columns.numbers), len(columns.categories)
    indicators = dict(zip((c.name for c in columns.numbers if c.has_missing), values[numbers:], strict=False))
    cells = {}
    for column, value in zip(columns.numbers, values[:numbers], strict=True):
        is_missing = indicators.get(column.name, 0.0) == 1.0
        cells[column.name] = "" if is_missing else number(_in_units(value, column))
    codes = values[len(values) - categories :]
    for column, code in zip(columns.categories, codes, strict=True):
        cells[column.name] = ("", *column.categories)[int(code)]
    return cells


def _in_units(value: float, column: NumberColumn) -> float:
    """The number that was standardised, without what float32 has added to it."""
    digits = 5 - math.floor(math.log10(max(column.scale, 1e-12)))
    return round(value * column.scale + column.mean, digits) + 0.0
