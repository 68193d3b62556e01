"""Rows of a source → uint8 tensors; the first bad row is refused with its file, its number and the reason."""

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from moebius.kit.errors import DataError
from moebius.lab.data.picture import convert_or_raise, count_channels
from moebius.lab.data.raw import RawRow, RawRows
from moebius.tasks._task import ABSENT

# Part of every cache key: raise it when a change of this file or of picture.py changes any pixel.
VERSION = 2


def decode_rows(
    rows: RawRows, classes: tuple[str, ...], size: int, color: str
) -> tuple[UInt8[Tensor, "T channels size size"], Int64[Tensor, "T ..."]]:
    """Decode the images and labels of all rows.

    It runs in one thread on purpose: a small image takes some 50 µs, nearly all of it in Python, and two threads took
    1.7 times as long.

    Arguments:
        rows: T rows of a source.
        classes: names of the classes; a label is one of them, or a position among them.
        size: height and width of the images, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Returns:
        images (T, channels, size, size), 0 … 255, and labels (T,), 0 … C−1; or (T, size, size) where a row has a class
        for each pixel, each the nearest one where images are scaled, and −100 for pixels without one.

    Raises:
        DataError: an image is missing or broken, or a label is missing or no class, or of another form than the first;
            or there are fewer rows than their file says, or more than the memory has room for.
    """
    shape, decoded = (len(rows), count_channels(color), size, size), 0
    try:
        images = np.empty(shape, dtype=np.uint8)
    except (MemoryError, ValueError) as error:
        rule = f"{len(rows):,} images of {size} × {size} pixels are too many for the memory"
        raise DataError(rule, f"size: {max(1, size // 2)}    # or fewer images") from error
    labels: np.ndarray | None = None
    positions = {name: position for position, name in enumerate(classes)}
    for t, row in enumerate(rows):
        label = _decode_label(row, positions, size)
        if labels is None:
            labels = np.empty((len(rows), *label.shape), dtype=np.int64)
        if label.shape != labels.shape[1:]:
            rule = "has a class for each pixel, and rows before it one for the image, or the other way round"
            raise DataError(f"{row.where}: {rule}", "labels of one form for all rows")
        labels[t] = label
        if row.image is None or (isinstance(row.image, bytes) and not row.image):
            raise DataError(f"{row.where}: the image is missing", "add the image, or remove the row")
        images[t] = convert_or_raise(row.image, size, color, row.where)
        decoded = t + 1
    if decoded < len(rows):
        raise DataError(f"the set has {decoded:,} of {len(rows):,} rows", "download its files again")
    return torch.from_numpy(images), torch.from_numpy(np.empty(0, np.int64) if labels is None else labels)


def _decode_label(row: RawRow, positions: dict[str, int], size: int) -> np.ndarray:
    """Position of the row's class, or of those of its pixels; `positions` maps names of classes to positions."""
    label = row.label
    if isinstance(label, np.ndarray):
        return _decode_pixels(row.where, label, len(positions), size)
    if isinstance(label, str) and label in positions:
        return np.array(positions[label])
    if isinstance(label, int) and 0 <= label < len(positions):
        return np.array(label)
    reason = "the label is missing" if label is None else f"the label {label!r} is none of the {len(positions)} classes"
    choices = f"0 … {len(positions) - 1}" if isinstance(label, int) else ", ".join(positions)
    raise DataError(f"{row.where}: {reason}", f"change the label to one of {choices}, or remove the row")


def _decode_pixels(where: str, label: np.ndarray, classes: int, size: int) -> np.ndarray:
    """The class of each pixel of an image that is scaled to `size`: that of the nearest pixel."""
    wrong = label[(label != ABSENT) & ((label < 0) | (label >= classes))]
    if label.ndim != 2 or len(wrong):
        reason = f"has shape {label.shape}" if label.ndim != 2 else f"holds {wrong[0]}"
        rule = f"the label of pixels {reason}, needs (height, width) numbers 0 … {classes - 1}, or {ABSENT} for none"
        raise DataError(f"{where}: {rule}", "correct the label, or remove the row")
    index = [(np.arange(size) * length + length // 2) // size for length in label.shape]
    return label[np.ix_(*index)].astype(np.int64)
