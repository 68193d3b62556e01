"""Tidy pandas frames: one observation per line."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# Any to the type checker: pandas carries no types, and those that pyright infers from its code (a column may be an
# array, a scalar or a frame) are wrong far more often than right.
Frame = Any


def make_frame(lines: Sequence[Any], columns: Sequence[str] | None = None) -> Frame:
    """A frame of these lines, which are tuples or mappings."""
    return pd.DataFrame(lines, columns=list(columns) if columns is not None else None)


def concatenate(frames: Sequence[Frame]) -> Frame:
    """Frames of the same columns, one below the other."""
    return pd.concat(frames, ignore_index=True)


def prepend_columns(frame: Frame, values: Mapping[str, Any]) -> Frame:
    """The frame with columns of one value each before its other columns."""
    return frame.assign(**values)[[*values, *(name for name in frame.columns if name not in values)]]
