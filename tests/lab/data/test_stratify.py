import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data.stratify import mark_test_rows


def test_each_class_gives_its_share():
    labels = np.array([0] * 10 + [1] * 20 + [2] * 5)
    is_test = mark_test_rows(labels, 0.2)
    assert np.bincount(labels[is_test]).tolist() == [2, 4, 1]


def test_both_sides_keep_a_row_of_a_class_of_two():
    labels = np.array([0, 0])
    assert mark_test_rows(labels, 0.01).sum() == mark_test_rows(labels, 0.99).sum() == 1


def test_the_seed_decides_which_rows_are_marked():
    labels = np.zeros(100, dtype=np.int64)
    assert (mark_test_rows(labels, 0.5, 0) == mark_test_rows(labels, 0.5, 0)).all()
    assert (mark_test_rows(labels, 0.5, 0) != mark_test_rows(labels, 0.5, 1)).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_a_share_outside_of_0_and_1_is_refused(share):
    with pytest.raises(ArgumentError, match="share: must lie between 0 and 1"):
        mark_test_rows(np.zeros(3, dtype=np.int64), share)
