"""Rows of parquet files with an image column and a label column."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.kit.errors import DataError
from moebius.lab.data.columns import Columns, find_columns, table_rows
from moebius.lab.data.raw import Contents, RawRow, RawRows


def read_parquet(train: list[Path], test: list[Path], image: str | None, label: str | None) -> Contents:
    """Open parquet files and find their columns; the rows are read in batches, when they are iterated over.

    Arguments:
        train, test: the files of each split.
        image, label: names of the columns; None = the columns that `find_columns` finds by their types.

    Raises:
        DataError: a file is truncated, is no parquet file, or lacks one of the columns. Iterating over the rows raises
            it too, for a page that cannot be read.
    """
    files = {path: _open_parquet(path) for path in (*train, *test)}
    features = datasets.Features.from_arrow_schema(files[train[0]].schema_arrow)

    def read_labels(column: str) -> pa.ChunkedArray:
        return pa.chunked_array([chunk for path in train for chunk in files[path].read([column])[column].chunks])

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
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: truncated, or no parquet file: {error}", "download the file again") from error


def _read_rows(path: Path, columns: Columns) -> Iterator[RawRow]:
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=[columns.image, columns.label]):
                yield from table_rows(pa.Table.from_batches([batch]), columns, str(path), first)
                first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: row {first} or one of the next 1,024 cannot be read: {error}", "download the file again"
        ) from error
