"""Rows of a source → uint8 tensors; the first bad row is refused with its file, number and reason."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from moebius.kit.errors import DataError
from moebius.lab.data.picture import channels_of, convert_or_refuse
from moebius.lab.data.raw import Row, Rows

# Part of every cache key: raise it when a change of this file or of picture.py changes any pixel.
VERSION = 1


def decode(
    rows: Rows, classes: tuple[str, ...], size: int, color: str
) -> tuple[UInt8[Tensor, "T channels size size"], Int64[Tensor, "T"]]:
    """Decode all rows.

    Single-threaded on purpose: small images take some 50 µs each, nearly all of it in Python, and two threads took
    1.7 times as long.

    Arguments:
        rows: T rows of a source.
        classes: names of the classes that labels point at.
        size: height and width of the images, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Returns:
        images (T, channels, size, size) and labels (T,).

    Raises:
        DataError: for a missing, broken or wrongly labelled row.
    """
    images = np.empty((len(rows), channels_of(color), size, size), dtype=np.uint8)
    labels = np.empty(len(rows), dtype=np.int64)
    position = {name: index for index, name in enumerate(classes)}
    for t, row in enumerate(rows):
        labels[t] = _label(row, position)
        if row.image is None or (isinstance(row.image, bytes) and not row.image):
            raise DataError(f"{row.where}: the image is missing", "take the row out")
        images[t] = convert_or_refuse(row.image, size, color, row.where)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _label(row: Row, position: dict[str, int]) -> int:
    label = row.label
    if isinstance(label, str) and label in position:
        return position[label]
    if isinstance(label, int) and 0 <= label < len(position):
        return label
    reason = "the label is missing" if label is None else f"the label {label!r} is none of the {len(position)} classes"
    known = f"0 … {len(position) - 1}" if isinstance(label, int) else ", ".join(position)
    raise DataError(f"{row.where}: {reason}", f"label it with one of {known}, or take the row out")
