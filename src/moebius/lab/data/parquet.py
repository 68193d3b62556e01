"""Rows of parquet files with a column of images and one of labels."""

from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.kit.errors import DataError
from moebius.lab.data.columns import Columns, find_columns, table_rows
from moebius.lab.data.raw import Contents, Row, Rows


def read_parquet(train: list[Path], test: list[Path], image: str | None, label: str | None) -> Contents:
    """Rows of parquet files, read some at a time.

    Arguments:
        train, test: the files of each split.
        image, label: names of the columns; None = found by the type of their features.

    Raises:
        DataError: for a file that is truncated or no parquet file, or without these columns; while iterating too.
    """
    opened = {path: _open(path) for path in (*train, *test)}
    features = datasets.Features.from_arrow_schema(opened[train[0]].schema_arrow)

    def labels(column: str) -> pa.ChunkedArray:
        return pa.chunked_array([chunk for path in train for chunk in opened[path].read([column])[column].chunks])

    columns = find_columns(features, labels, str(train[0]), image, label)
    for path, file in opened.items():
        missing = {columns.image, columns.label} - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{path}: no column is called {missing.pop()!r}, as it is in {train[0].name}")

    def rows(files: list[Path]) -> Rows:
        count = sum(opened[path].metadata.num_rows for path in files)
        return Rows(count, lambda: (row for path in files for row in _rows(path, columns)))

    return Contents(columns.classes, rows(train), rows(test))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: truncated, or no parquet file: {error}", "download the file again") from error


def _rows(path: Path, columns: Columns) -> Iterator[Row]:
    first = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=[columns.image, columns.label]):
                yield from table_rows(pa.Table.from_batches([batch]), columns, str(path), first)
                first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: row {first} or one soon after cannot be read: {error}", "download the file again"
        ) from error
