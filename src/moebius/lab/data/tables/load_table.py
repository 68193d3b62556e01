"""From a source that is a table to a data set: rows are held out, columns are learned on the others, then encoded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.kit.names import check_names
from moebius.lab.data.nested import map_nested, tensors_of
from moebius.lab.data.raw import Source
from moebius.lab.data.row_draws import check_rows, count_validation_rows, draw_order
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import find_positions
from moebius.lab.data.tables.column_types import read_categories
from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.data.tables.table import Table


def load_table(
    source: Source,
    train_rows: int | None = None,
    test_rows: int | None = None,
    validation_rows: int = 0,
    validation: float | None = None,
    classes: Sequence[str | int] | None = None,
    data_dir: Path | str | None = None,
    draw: int = 0,
) -> Dataset:
    """Load a table: the source's `Table` says which rows are tested on.

    The rows of the splits are float32: columns as `TableColumns` encodes them, which is learned on the training rows
    alone. Labels are int64 positions of classes, or float32 numbers, standardised by the training rows, where the
    target is numbers: then the data set has no `classes`. Of several targets they are a mapping, with −100 or NaN where
    a row lacks one. The values of the `domain` column, in alphabetical order, are the domains.

    Validation rows are held out of the training rows as test rows are: by group or by time where these are, and with
    `validation` the same share of each class. `validation_rows` without group and time draws them over all classes.

    Arguments:
        source: the table.
        train_rows, test_rows, validation_rows, validation, classes, data_dir, draw: as for `load_sets`; rows that are
            held out by time are the latest in every draw.

    Raises:
        ArgumentError: a number out of its range, or an unknown class.
        DataError: the file is missing, a column holds what it cannot, or a name is empty or not printable.

    Example:
        >>> from moebius.lab.data.sources.sklearn import Sklearn
        >>> data = load_table(Sklearn("iris"))
        >>> data.train.images.shape, data.facts["classes"], data.facts["cardinalities"]
        (torch.Size([120, 4]), 3, [])
    """
    check_rows("train_rows", train_rows)
    check_rows("test_rows", test_rows)
    table: Table = source.open(None if data_dir is None else Path(data_dir)).read()
    if classes is not None:
        table = _keep_classes(table, classes)
    strata = _strata(table)
    is_test = table.hold_out.mark(table.test, strata, len(table))
    train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if not len(train) or not len(test):
        fix = "test: 0.5, or a table with more rows"
        raise DataError(f"{table.where}: {len(table)} rows are too few to train and to test on", fix)
    held_out, train = _hold_out(table, strata, train, validation_rows, validation, draw)
    check_rows("train_rows", train_rows, len(train), "the number of training rows that are not validation rows")
    check_rows("test_rows", test_rows, len(test), "the number of test rows")
    train, test = _draw(train, train_rows, draw), _draw(test, test_rows)
    columns = TableColumns.fit(table, train)
    if classes is not None:
        (target,) = columns.targets
        positions = find_positions(classes, target.classes)
        columns = replace(columns, targets=(replace(target, classes=tuple(target.classes[at] for at in positions)),))
    labels = {column.name: column.encode(table.targets[column.name], table.where) for column in columns.targets}
    labels = labels if len(labels) > 1 else next(iter(labels.values()))
    codes, domains = [0] * len(table), [source.name]
    if table.domain is not None:
        codes, domains = read_categories(table.domain, table.where)
    columns.check_names()
    check_names("domain", domains, table.where)

    def make_split(rows: np.ndarray) -> Split:
        index, domain = torch.from_numpy(rows), torch.tensor(codes, dtype=torch.int64)
        chosen = map_nested(labels, lambda column: column[index])
        return Split(columns.encode(table.features.iloc[rows]), chosen, domain[index])

    splits = [make_split(rows) for rows in (train, held_out, test)]
    validation_split = splits[1] if len(held_out) else None
    names = columns.targets[0].classes if len(columns.targets) == 1 else ()
    targets = {column.name: column.names for column in columns.targets}
    fingerprint = _fingerprint(splits, [columns.to_values(), domains, source.name])
    return Dataset(splits[0], validation_split, splits[2], names, tuple(domains), fingerprint, columns, targets)


def _fingerprint(splits: Sequence[Split], about: Any) -> str:
    digest = hashlib.sha256(json.dumps(about).encode())
    for split in splits:
        for tensor in (split.images, *tensors_of(split.labels), split.domains):
            digest.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _strata(table: Table) -> np.ndarray | None:
    """The class of each row by the first target of classes; None where there is none."""
    for name, target_type in zip(table.targets, table.target_types, strict=True):
        if target_type == "classes":
            return read_categories(table.targets[name], table.where)[0]
    return None


def _keep_classes(table: Table, classes: Sequence[str | int]) -> Table:
    """The rows of some classes."""
    if table.target_types != ("classes",):
        rule = "must be null where the target is no single column of classes"
        raise ArgumentError("classes", rule, list(classes), "classes: null")
    positions, names = read_categories(table.targets.iloc[:, 0], table.where)
    return table.take(np.flatnonzero(np.isin(positions, find_positions(classes, tuple(names)))))


def _hold_out(
    table: Table,
    strata: np.ndarray | None,
    train: np.ndarray,
    validation_rows: int,
    validation: float | None,
    draw: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows to validate with, and of those to train on."""
    count = count_validation_rows(len(train), validation, validation_rows)
    if not count:
        return train[:0], train
    hold_out = table.hold_out.take(train)
    hold_out = replace(hold_out, seed=hold_out.seed + draw)
    if validation is None and hold_out.groups is None and hold_out.times is None:
        is_held_out = np.zeros(len(train), dtype=bool)
        is_held_out[draw_order(len(train), draw)[:count].numpy()] = True
    else:
        share = count / len(train) if validation is None else validation
        is_held_out = hold_out.mark(share, None if strata is None else strata[train], len(train))
    return train[is_held_out], train[~is_held_out]


def _draw(rows: np.ndarray, count: int | None, draw: int = 0) -> np.ndarray:
    """So many of the rows, drawn at random, in their order; None = all."""
    return rows if count is None else rows[draw_order(len(rows), draw)[:count].sort().values.numpy()]
