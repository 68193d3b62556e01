"""A row that is not among those of the data: a picture that is uploaded, or values that are typed."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data.picture import convert_or_raise
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.explorer.upload import decoding
from moebius.lab.predict.explained_rows import ExplainedRows

# Numbers of a row that may be typed.
MOST_NUMBERS = 4096
# Digits of the number of a class.
MOST_DIGITS = 9


def ask_about(
    source: RowSource, fields: Mapping[str, str], picture: bytes | None = None, name: str = "your picture"
) -> tuple[ExplainedRows, Tensor | None]:
    """What the model makes of a row, and the picture as the model sees it; None for a row that is none.

    Arguments:
        source: rows that the model takes.
        fields: "column NAME" for each column of a table, or "numbers"; also "label" and "domain", which may be empty.
        picture: the bytes of an image file.
        name: of the picture.

    Raises:
        ArgumentError, DataError: the row, its label or its domain does not fit the model.
    """
    label = fields.get("label", "").strip() or None
    domain = fields.get("domain", "").strip() or None
    if domain is None and source.needs_domain:
        rule = "must be named, because this model's gate routes by it"
        raise ArgumentError("domain", rule, "", f"one of {', '.join(source.domains)}")
    if picture is not None:
        pixels = _read_picture(source, picture, name)
        return source.explain_new(pixels[None], name, _label(source, label), domain), pixels
    if source.are_pictures:
        raise ArgumentError("picture", "needs an image file", "none", "choose a file, or drop one on the page")
    if source.columns is not None:
        return source.explain_new(_frame(source, fields), "your row", _label(source, label), domain), None
    return source.explain_new(_numbers(source, fields), "your row", _label(source, label), domain), None


def _read_picture(source: RowSource, picture: bytes, name: str) -> Tensor:
    images = source.split.images
    if not source.are_pictures:
        raise ArgumentError("picture", "needs a model of pictures", name, "type a row instead")
    channels, height, width = images.shape[1:]
    if height != width:
        rule = f"can be read for square pictures, and these are {height} × {width}"
        raise ArgumentError("picture", rule, name, "choose a row of the data")
    with decoding(picture, name):
        pixels = torch.from_numpy(convert_or_raise(picture, height, "grey" if channels == 1 else "rgb", name).copy())
    if images.dtype == torch.uint8:
        return pixels
    if images.min() < 0 or images.max() > 1:
        rule = "can be read where rows are bytes or numbers in [0, 1]"
        raise ArgumentError("picture", rule, name, "mb.explore(model, (x_uint8, y)), or x in [0, 1]")
    return (pixels.float() / 255).to(images.dtype)


def _frame(source: RowSource, fields: Mapping[str, str]) -> pd.DataFrame:
    columns = source.columns
    assert columns is not None
    values: dict[str, Any] = {}
    for column in columns.numbers:
        text = fields.get(f"column {column.name}", "").strip()
        values[column.name] = [_parse(column.name, text) if text else float("nan")]
    for column in columns.categories:
        text = fields.get(f"column {column.name}", "").strip()
        if text and text not in column.categories:
            shown = ", ".join(column.categories[:8])
            raise ArgumentError(column.name, f"needs one of its categories ({shown} …)", text, column.categories[0])
        values[column.name] = [text or None]
    return pd.DataFrame(values).astype({column.name: object for column in columns.categories})


def _numbers(source: RowSource, fields: Mapping[str, str]) -> Tensor:
    images = source.split.images
    if not isinstance(images, Tensor):
        raise DataError("rows of several inputs cannot be typed", "choose a row of the data")
    texts = [text for text in re.split(r"[\s,;]+", fields.get("numbers", "")) if text]
    shape = [*images.shape[1:]]
    if len(texts) != math.prod(shape) or len(texts) > MOST_NUMBERS:
        rule = f"needs {math.prod(shape)} numbers with spaces between them"
        raise ArgumentError("numbers", rule, f"{len(texts)} of them", "change those of a row of the data")
    values = torch.tensor([_parse("numbers", text) for text in texts], dtype=torch.float64)
    if not images.dtype.is_floating_point and not bool((values == values.round()).all()):
        raise ArgumentError("numbers", "needs whole numbers", fields["numbers"][:60], "1 2 3")
    return values.to(images.dtype).view(1, *shape)


def _parse(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ArgumentError(name, "needs a number", text, "0.5")
    return value


def _label(source: RowSource, label: str | None) -> Any:
    """A label as `Subject.encode_label` takes it; None for several targets, of which nothing is typed."""
    targets = source.subject.targets
    if label is None or (targets is not None and len(targets) != 1):
        return None
    has_classes = targets is not None and all(target.classes for target in targets)
    if has_classes:
        return [label]
    if targets is None and label.isdecimal():
        if len(label) > MOST_DIGITS:
            raise ArgumentError("label", f"needs a number of at most {MOST_DIGITS} digits", label, "0")
        return [int(label)]
    return [_parse("label", label)]
