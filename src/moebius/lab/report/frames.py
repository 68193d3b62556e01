"""Tidy pandas frames: one observation per line."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from moebius.kit.names import safe_cells

# Any to the type checker: pandas carries no types, and those that pyright infers from its code (a column may be an
# array, a scalar or a frame) are wrong far more often than right.
Frame = Any


def make_frame(lines: Sequence[Any], columns: Sequence[str] | None = None) -> Frame:
    """A frame of these lines, which are tuples or mappings."""
    return pd.DataFrame(lines, columns=list(columns) if columns is not None else None)


def for_spreadsheets(frame: Frame) -> Frame:
    """The frame as a CSV file may hold it: no cell, heading or name of a line begins like a formula.

    Example:
        >>> for_spreadsheets(make_frame([("=1+1", 2)], ["class", "rows"])).to_csv(index=False)
        "class,rows\\n'=1+1,2\\n"
    """
    safe = frame.copy()
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(place, pd.Series(safe_cells(list(frame.iloc[:, place])), frame.index, dtype=object))
    safe.columns = safe_cells(list(frame.columns))
    if not pd.api.types.is_numeric_dtype(frame.index.dtype):
        safe.index = safe_cells(list(frame.index))
    return safe


def concatenate(frames: Sequence[Frame]) -> Frame:
    """Frames of the same columns, one below the other."""
    return pd.concat(frames, ignore_index=True)


def prepend_columns(frame: Frame, values: Mapping[str, Any]) -> Frame:
    """The frame with columns of one value each before its other columns."""
    return frame.assign(**values)[[*values, *(name for name in frame.columns if name not in values)]]
