"""Which columns of a table hold the image and the label, and the rows of such a table."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from moebius.kit.errors import DataError
from moebius.lab.data.raw import Row


class Columns(NamedTuple):
    """Names of the image and label columns, the classes, and whether a label is an index (else the text of a name)."""

    image: str
    label: str
    classes: tuple[str, ...]
    by_index: bool


def find_columns(
    features: datasets.Features,
    labels: Callable[[str], pa.ChunkedArray],
    where: str,
    image: str | None = None,
    label: str | None = None,
) -> Columns:
    """Find the columns by the type of their features.

    Arguments:
        features: the table's features.
        labels: gives the values of a label column over all training rows; asked only for a column without class names.
        where: the set, for messages.
        image: name of the image column; None = the only one that holds images.
        label: name of the label column; None = the only one with class names, else the one called label or labels.

    Raises:
        DataError: when there is none, or more than one.
    """
    images = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and {"bytes", "path"} == set(feature))
    ]
    named = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    image = _one("image", image, images, features, where)
    label = _one("label", label, named or [name for name in ("label", "labels") if name in features], features, where)
    feature = features[label]
    if isinstance(feature, datasets.ClassLabel) and feature.names:
        return Columns(image, label, tuple(feature.names), True)
    values = pc.unique(labels(label).drop_null())  # pyright: ignore[reportAttributeAccessIssue]
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise DataError(f"{where}: column {label!r} holds {values.type}, no labels", "label: NAME OF THE LABEL COLUMN")
    known = sorted(value for value in values.to_pylist() if isinstance(value, str) or value >= 0)
    return Columns(image, label, tuple(map(str, known)), False)


def table_rows(table: pa.Table, columns: Columns, file: str, first: int) -> Iterator[Row]:
    """The rows of a table that holds `file`'s rows from number `first` on."""
    pairs = zip(table[columns.image].to_pylist(), table[columns.label].to_pylist(), strict=True)
    for index, (image, label) in enumerate(pairs, first):
        # A label of another type than its column's (a float among class indices) is told as such when decoding.
        yield Row(_picture(image), label if columns.by_index or label is None else str(label), file, index)


def _picture(value: object) -> bytes | Path | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"]
        if value.get("path") and Path(value["path"]).is_file():
            return Path(value["path"])
    return None


def _one(what: str, given: str | None, found: list[str], features: Iterable[str], where: str) -> str:
    if given is not None:
        if given not in features:
            raise DataError(f"{where}: no column is called {given!r}", f"{what}: one of {', '.join(features)}")
        return given
    if len(found) == 1:
        return found[0]
    told = f"more than one column may hold the {what}: {', '.join(found)}" if found else f"no column holds the {what}"
    raise DataError(f"{where}: {told}", f"{what}: one of {', '.join(found or features)}")
