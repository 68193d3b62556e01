"""Folds of the training rows."""

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.folds import fold_of_rows, without_fold
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset, Split


@pytest.fixture
def data():
    labels = torch.arange(60) % 3
    split = Split(torch.arange(60)[:, None], labels, torch.zeros(60, dtype=torch.int64))
    return Dataset(split, split.take(torch.arange(5)), split, ("a", "b", "c"), ("set",), "rows")


def test_every_row_is_left_out_once(data):
    left_out = [set(range(60)) - set(without_fold(data, fold, 7).train.images[:, 0].tolist()) for fold in range(7)]
    assert sorted(row for rows in left_out for row in rows) == list(range(60))
    assert {len(rows) for rows in left_out} == {8, 9}
    assert [fold_of_rows(60, 7)[sorted(rows)].unique().tolist() for rows in left_out] == [[fold] for fold in range(7)]


def test_rows_are_selected_among_those_that_are_left(data):
    whole = select_rows(data, classes=[0, 2], outputs="own")
    left = select_rows(data, classes=[0, 2], outputs="own", fold=[1, 4])
    rows = left.train.images[:, 0]
    assert set(rows.tolist()) == {row for row in whole.train.images[:, 0].tolist() if fold_of_rows(60, 4)[row] != 1}
    assert len({left.fingerprint, whole.fingerprint, select_rows(data, fold=[0, 4]).fingerprint, data.fingerprint}) == 4
    assert torch.equal(left.test.images, whole.test.images)


def test_there_is_a_row_for_each_fold():
    assert fold_of_rows(5, 5).sort().values.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ArgumentError, match="must be 2 … 4"):
        fold_of_rows(4, 5)
