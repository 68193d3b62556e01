import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data.tables.hold_out import HoldOut


def test_classes_are_held_out_by_the_same_share():
    labels = np.array([0] * 80 + [1] * 20)
    is_marked = HoldOut().mark(0.25, labels)
    assert [is_marked[labels == label].sum() for label in (0, 1)] == [20, 5]


def test_rows_without_classes_are_drawn_at_random_with_the_seed():
    marks = [HoldOut(seed=seed).mark(0.2, None, 50) for seed in (0, 0, 1)]
    assert [mark.sum() for mark in marks] == [10, 10, 10]
    assert (marks[0] == marks[1]).all()
    assert (marks[0] != marks[2]).any()


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_both_sides(seed):
    groups = np.random.default_rng(3).integers(30, size=200)
    is_marked = HoldOut(groups=groups, seed=seed).mark(0.2, None)
    assert not set(groups[is_marked]) & set(groups[~is_marked])
    # As near to 40 rows as whole groups of 2 to 12 rows come.
    assert abs(is_marked.sum() - 40) <= 6


def test_one_group_has_to_remain():
    assert HoldOut(groups=np.array([0, 0, 0, 1])).mark(0.9, None).sum() in (1, 3)
    with pytest.raises(ArgumentError, match="group: needs a column with at least two values") as caught:
        HoldOut(groups=np.zeros(4, dtype=np.int64)).mark(0.2, None)
    assert caught.value.fix == "group: null"


def test_the_latest_rows_are_held_out():
    times = np.random.default_rng(0).permutation(50)
    is_marked = HoldOut(times=times).mark(0.2, np.zeros(50, dtype=np.int64))
    assert is_marked.sum() == 10
    assert times[is_marked].min() > times[~is_marked].max()


def test_of_rows_of_one_time_the_last_in_the_table_are_held_out():
    assert HoldOut(times=np.array([5, 5, 5, 1])).mark(0.5, None).tolist() == [False, True, True, False]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_row_is_left_on_each_side(share):
    assert HoldOut(times=np.arange(5)).mark(share, None).sum() in (1, 4)
    assert HoldOut().mark(share, None, 5).sum() in (1, 4)


def test_rows_that_are_taken_keep_their_groups_and_times():
    rows = np.array([3, 0])
    assert HoldOut(groups=np.array([0, 1, 1, 2])).take(rows).groups.tolist() == [2, 0]
    assert HoldOut(times=np.array([5, 6, 7, 8])).take(rows).times.tolist() == [8, 5]
