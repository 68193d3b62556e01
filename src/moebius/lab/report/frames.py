"""Tidy frames, as the report passes them round."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

# Any to the type checker: pandas carries no types, and those that pyright infers from its code (a column may be an
# array, a scalar or a frame) are wrong far more often than right.
Frame = Any


def make_frame(lines: Sequence[Any], columns: Sequence[str] | None = None) -> Frame:
    """A frame of these lines, tuples or mappings."""
    return pd.DataFrame(lines, columns=list(columns) if columns is not None else None)


def concatenate(frames: Sequence[Frame]) -> Frame:
    """Frames of the same columns, one below the other."""
    return pd.concat(frames, ignore_index=True)
