"""Rows of parquet files with an image column and a label column."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.kit.errors import DataError
from moebius.kit.files import is_plain_file
from moebius.lab.data.columns import Columns, find_columns, table_rows
from moebius.lab.data.raw import Contents, RawRow, RawRows
from moebius.lab.data.tables.read_file import UNREADABLE, check_column_names


def read_parquet(train: list[Path], test: list[Path], image: str | None, label: str | None) -> Contents:
    """Open parquet files and find their columns; the rows are read in batches, when they are iterated over.

    Arguments:
        train, test: the files of each split.
        image, label: names of the columns; None = the columns that `find_columns` finds by their types.

    Raises:
        DataError: a file is truncated, is no parquet file, or lacks one of the columns. Iterating over the rows raises
            it too, for a page that cannot be read, and for the path of an image in the place of its bytes.
    """
    files = {path: _open_parquet(path) for path in (*train, *test)}
    features = _read_features(train[0], files[train[0]])

    def read_labels(column: str) -> pa.ChunkedArray:
        kind, chunks = files[train[0]].schema_arrow.field(column).type, []
        for path in train:
            try:
                chunks += files[path].read([column])[column].cast(kind).chunks
            except UNREADABLE as error:
                rule = f"{path}: column {column!r} cannot be read as {kind}, as it is in {train[0].name}: {error}"
                raise DataError(rule, "download the file again") from error
        return pa.chunked_array(chunks, kind)

    columns = find_columns(features, read_labels, str(train[0]), image, label)
    for path, file in files.items():
        missing = {columns.image, columns.label} - set(file.schema_arrow.names)
        if missing:
            raise DataError(
                f"{path}: no column is called {missing.pop()!r}, as it is in {train[0].name}",
                f"rename the columns of {path.name} to those of {train[0].name}",
            )

    def make_rows(paths: list[Path]) -> RawRows:
        count = sum(files[path].metadata.num_rows for path in paths)
        return RawRows(count, lambda: (row for path in paths for row in _read_rows(path, columns)))

    return Contents(columns.classes, make_rows(train), make_rows(test))


def _open_parquet(path: Path) -> pq.ParquetFile:
    if not is_plain_file(path):
        raise DataError(f"{path}: is no plain file", "download the file again")
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated, or no parquet file: {error}", "download the file again") from error
    check_column_names(names, path)
    return file


def _read_features(path: Path, file: pq.ParquetFile) -> datasets.Features:
    try:
        features = datasets.Features.from_arrow_schema(file.schema_arrow)
        for feature in features.values():
            if isinstance(feature, datasets.ClassLabel) and not all(isinstance(name, str) for name in feature.names):
                raise ValueError("a name of a class is no text")
    # What the file says of its features may be any JSON, and the library raises whatever its parts raise.
    except Exception as error:
        rule = f"{path}: its features cannot be read ({type(error).__name__}: {error})"
        raise DataError(rule, "download the file again") from error
    return features


def _read_rows(path: Path, columns: Columns) -> Iterator[RawRow]:
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=[columns.image, columns.label]):
                yield from table_rows(pa.Table.from_batches([batch]), columns, str(path), first)
                first += batch.num_rows
    except UNREADABLE as error:
        raise DataError(
            f"{path}: row {first} or one of the next 1,024 cannot be read: {error}", "download the file again"
        ) from error
