"""The image column and the label column of a table, and the table's rows."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from moebius.kit.errors import DataError
from moebius.lab.data.raw import RawRow


class Columns(NamedTuple):
    """The columns of a table that hold images and labels.

    Arguments:
        image: name of the image column.
        label: name of the label column.
        classes: names of the classes.
        by_index: whether the label column holds positions in `classes`; if not, it holds values whose text is the
            class name.
    """

    image: str
    label: str
    classes: tuple[str, ...]
    by_index: bool


def find_columns(
    features: datasets.Features,
    read_labels: Callable[[str], pa.ChunkedArray],
    where: str,
    image: str | None = None,
    label: str | None = None,
) -> Columns:
    """Find the image column and the label column by the types of the features.

    Arguments:
        features: features of the table.
        read_labels: reads the values of a column over all training rows; called only for a label column without class
            names.
        where: name of the set, for error messages.
        image: name of the image column; None = the only column that holds images.
        label: name of the label column; None = the only column with class names, or else the one named label or
            labels.

    Raises:
        DataError: no column fits, several do, or the label column holds neither whole numbers nor text.
    """
    image_columns = [
        name
        for name, feature in features.items()
        if isinstance(feature, datasets.Image) or (isinstance(feature, dict) and {"bytes", "path"} == set(feature))
    ]
    label_columns = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    label_columns = label_columns or [name for name in ("label", "labels") if name in features]
    image = _choose_column("image", image, image_columns, features, where)
    label = _choose_column("label", label, label_columns, features, where)
    feature = features[label]
    if isinstance(feature, datasets.ClassLabel) and feature.names:
        return Columns(image, label, tuple(feature.names), True)
    values = pc.unique(read_labels(label).drop_null())  # pyright: ignore[reportAttributeAccessIssue]
    if not (
        pa.types.is_integer(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    ):
        raise DataError(
            f"{where}: column {label!r} holds {values.type}, and labels are whole numbers or text",
            "label: NAME OF THE LABEL COLUMN",
        )
    classes = sorted(value for value in values.to_pylist() if isinstance(value, str) or value >= 0)
    return Columns(image, label, tuple(map(str, classes)), False)


def table_rows(table: pa.Table, columns: Columns, file: str, first: int) -> Iterator[RawRow]:
    """The rows of a table.

    Arguments:
        table: consecutive rows of `file`.
        columns: the table's image and label columns.
        file: name of the file, for error messages.
        first: number of the table's first row in `file`, from 0.
    """
    pairs = zip(table[columns.image].to_pylist(), table[columns.label].to_pylist(), strict=True)
    for number, (image, label) in enumerate(pairs, first):
        # A label of a wrong type (a float among class positions) passes here; decode_rows refuses it.
        yield RawRow(_read_cell(image), label if columns.by_index or label is None else str(label), file, number)


def _read_cell(value: object) -> bytes | Path | None:
    """The image in a cell of the image column: its bytes, or the path of its file; None where it is missing."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"]
        if value.get("path") and Path(value["path"]).is_file():
            return Path(value["path"])
    return None


def _choose_column(role: str, name: str | None, candidates: list[str], features: Iterable[str], where: str) -> str:
    """The column `name`, or the only candidate where no name is given."""
    if name is not None:
        if name not in features:
            raise DataError(f"{where}: no column is called {name!r}", f"{role}: one of {', '.join(features)}")
        return name
    if len(candidates) == 1:
        return candidates[0]
    rule = f"no column holds the {role}"
    if candidates:
        rule = f"more than one column may hold the {role}: {', '.join(candidates)}"
    raise DataError(f"{where}: {rule}", f"{role}: one of {', '.join(candidates or features)}")
