"""From a source that is a table to a data set: rows are held out, columns are learned on the others, then encoded."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data.raw import Source
from moebius.lab.data.row_draws import check_rows, count_validation_rows, draw_order
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import find_positions
from moebius.lab.data.tables.columns import TableColumns, encode_target
from moebius.lab.data.tables.table import Table


def load_table(
    source: Source,
    train_rows: int | None = None,
    test_rows: int | None = None,
    validation_rows: int = 0,
    validation: float | None = None,
    classes: Sequence[str | int] | None = None,
    data_dir: Path | str | None = None,
) -> Dataset:
    """Load a table: the source's `Table` says which rows are tested on.

    The rows of the splits are float32: columns as `TableColumns` encodes them, which is learned on the training rows
    alone. Labels are int64 positions of classes, or float32 numbers where the target is numbers; then `classes` of the
    data set is the name of the target.

    Validation rows are held out of the training rows as test rows are: by group or by time where these are, and with
    `validation` the same share of each class. `validation_rows` without group and time draws them over all classes.

    Arguments:
        source: the table.
        train_rows, test_rows, validation_rows, validation, classes, data_dir: as for `load_sets`.

    Raises:
        ArgumentError: a number out of its range, or an unknown class.
        DataError: the file is missing, or a column holds what it cannot.

    Example:
        >>> from moebius.lab.data.sources.sklearn import Sklearn
        >>> data = load_table(Sklearn("iris"))
        >>> data.train.images.shape, data.facts["classes"], data.facts["cardinalities"]
        (torch.Size([120, 4]), 3, [])
    """
    check_rows("train_rows", train_rows)
    check_rows("test_rows", test_rows)
    table: Table = source.open(None if data_dir is None else Path(data_dir)).read()
    labels, names = encode_target(table)
    if classes is not None:
        table, labels, names = _keep_classes(table, labels, names, classes)
    is_test = table.hold_out.mark(table.test, labels if table.target_type == "classes" else None, len(table))
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if not len(train) or not len(test):
        fix = "test: 0.5, or a table with more rows"
        raise DataError(f"{table.where}: {len(table)} rows are too few to train and to test on", fix)
    held_out, train = _hold_out(table, labels, train, validation_rows, validation)
    check_rows("train_rows", train_rows, len(train), "the number of training rows that are not validation rows")
    check_rows("test_rows", test_rows, len(test), "the number of test rows")
    train, test = _draw(train, train_rows), _draw(test, test_rows)
    columns = TableColumns.fit(table.take(train))
    tensors = torch.from_numpy(labels)

    def make_split(rows: np.ndarray) -> Split:
        index = torch.from_numpy(rows)
        return Split(columns.encode(table.features.iloc[rows]), tensors[index], torch.zeros_like(index))

    splits = [make_split(rows) for rows in (train, held_out, test)]
    digest = hashlib.sha256(json.dumps([columns.to_values(), names, source.name]).encode())
    for split in splits:
        for tensor in (split.images, split.labels):
            digest.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    validation_split = splits[1] if len(held_out) else None
    return Dataset(splits[0], validation_split, splits[2], names, (source.name,), digest.hexdigest(), columns)


def _keep_classes(
    table: Table, labels: np.ndarray, names: tuple[str, ...], classes: Sequence[str | int]
) -> tuple[Table, np.ndarray, tuple[str, ...]]:
    """The rows of some classes, whose labels become positions in `classes`."""
    if table.target_type == "numbers":
        rule = "must be null where the target is numbers"
        raise ArgumentError("classes", rule, list(classes), "classes: null")
    positions = find_positions(classes, names)
    relabel = np.full(len(names), -1)
    relabel[positions] = np.arange(len(positions))
    rows = np.flatnonzero(relabel[labels] >= 0)
    return table.take(rows), relabel[labels[rows]], tuple(names[position] for position in positions)


def _hold_out(
    table: Table, labels: np.ndarray, train: np.ndarray, validation_rows: int, validation: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows to validate with, and of those to train on."""
    count = count_validation_rows(len(train), validation, validation_rows)
    if not count:
        return train[:0], train
    hold_out = table.hold_out.take(train)
    if validation is None and hold_out.groups is None and hold_out.times is None:
        is_held_out = np.zeros(len(train), dtype=bool)
        is_held_out[draw_order(len(train))[:count].numpy()] = True
    else:
        share = count / len(train) if validation is None else validation
        is_held_out = hold_out.mark(share, labels[train] if table.target_type == "classes" else None, len(train))
    return train[is_held_out], train[~is_held_out]


def _draw(rows: np.ndarray, count: int | None) -> np.ndarray:
    """So many of the rows, drawn at random, in their order; None = all."""
    return rows if count is None else rows[draw_order(len(rows))[:count].sort().values.numpy()]
