"""The image column and the label column of a table, and the table's rows."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from moebius.kit.errors import DataError
from moebius.kit.files import is_plain_file
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
        DataError: no column fits, several do, two have one name, or the label column holds neither whole numbers nor
            text.
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
    labels = read_labels(label)
    kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            f"{where}: column {label!r} holds {labels.type}, and labels are whole numbers or text",
            "label: NAME OF THE LABEL COLUMN",
        )
    values = pc.unique(labels.drop_null())  # pyright: ignore[reportAttributeAccessIssue]
    classes = sorted(value for value in values.to_pylist() if isinstance(value, str) or value >= 0)
    return Columns(image, label, tuple(map(str, classes)), False)


def table_rows(
    table: pa.Table, columns: Columns, file: str, first: int, folders: Sequence[Path] = ()
) -> Iterator[RawRow]:
    """The rows of a table.

    Arguments:
        table: consecutive rows of `file`.
        columns: the table's image and label columns.
        file: name of the file, for error messages.
        first: number of the table's first row in `file`, from 0.
        folders: where images may be whose paths the table holds in the place of their bytes.

    Raises:
        DataError: a cell of the image column holds something else, or the path of an image elsewhere.
    """
    pairs = zip(table[columns.image].to_pylist(), table[columns.label].to_pylist(), strict=True)
    for number, (image, label) in enumerate(pairs, first):
        if isinstance(label, str | int | None):
            # A number among the names of classes passes here; decode_rows refuses it.
            text = label if columns.by_index or label is None else str(label)
            yield RawRow(_read_cell(image, folders, f"{file}: row {number}"), text, file, number)
        else:
            rule = f"{file}: row {number}: the label is a {type(label).__name__}, and labels are whole numbers or text"
            raise DataError(rule, "label: NAME OF THE LABEL COLUMN")


def find_linked_files(table: pa.Table, image: str, folders: Sequence[Path]) -> list[Path]:
    """The images in `folders` whose paths stand in the image column in the place of their bytes."""
    column = table[image]
    if not pa.types.is_struct(column.type) or {"bytes", "path"} - {field.name for field in column.type}:
        return []
    content, path = (pc.struct_field(column, name) for name in ("bytes", "path"))  # pyright: ignore
    texts = path.filter(content.is_null()).to_pylist()
    paths = (_file_inside(text, folders) for text in texts if isinstance(text, str))
    return [path for path in paths if path is not None]


def _read_cell(value: object, folders: Sequence[Path], where: str) -> bytes | Path | None:
    """The image in a cell of the image column: its bytes, or the path of its file; None where it is missing."""
    content = value.get("bytes") if isinstance(value, dict) else value
    path = value.get("path") if isinstance(value, dict) else None
    if isinstance(content, bytes):
        return content
    if content is not None:
        rule = f"the image is a {type(content).__name__}, and images are the bytes of a file"
        raise DataError(f"{where}: {rule}", "image: NAME OF THE IMAGE COLUMN")
    if not isinstance(path, str) or not path:
        return None
    file = _file_inside(path, folders)
    if file is None:
        rule = f"the path {path!r:.200} in the place of the bytes of an image is no file that belongs to the set"
        raise DataError(f"{where}: {rule}", "write the bytes of the images into the file")
    return file


def _file_inside(path: str, folders: Sequence[Path]) -> Path | None:
    """The file, if it is in one of the folders after all links are followed."""
    try:
        file = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, or a name with NUL
        return None
    inside = is_plain_file(file) and any(file.is_relative_to(folder.resolve()) for folder in folders)
    return file if inside else None


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
