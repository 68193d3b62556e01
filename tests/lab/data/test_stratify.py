import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data.stratify import held_out


def test_each_class_gives_its_share():
    labels = np.array([0] * 10 + [1] * 20 + [2] * 5)
    mark = held_out(labels, 0.2)
    assert np.bincount(labels[mark]).tolist() == [2, 4, 1]


def test_both_sides_keep_a_row_of_a_class_of_two():
    labels = np.array([0, 0])
    assert held_out(labels, 0.01).sum() == held_out(labels, 0.99).sum() == 1


def test_the_seed_decides():
    labels = np.zeros(100, dtype=np.int64)
    assert (held_out(labels, 0.5, 0) == held_out(labels, 0.5, 0)).all()
    assert (held_out(labels, 0.5, 0) != held_out(labels, 0.5, 1)).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_a_share_outside_of_0_and_1_is_refused(share):
    with pytest.raises(ArgumentError, match="share: must lie between 0 and 1"):
        held_out(np.zeros(3, dtype=np.int64), share)
