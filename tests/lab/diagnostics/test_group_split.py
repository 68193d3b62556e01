import numpy as np
import pytest

from moebius.lab.diagnostics import GroupSplit


def test_a_class_of_its_own_expert_and_one_that_is_spread(make_rows):
    classes = np.array([0] * 10 + [1] * 10)
    experts = np.array([0] * 10 + [1, 2] * 5)
    frame = GroupSplit.of(make_rows(np.eye(3)[experts], groups={"class": classes}, names={"class": ["cat", "dog"]}))
    assert frame["group"].tolist() == ["cat", "dog"]
    assert frame["experts"].tolist() == pytest.approx([1, 2])
    assert frame["largest"].tolist() == [1, 0.5]
    assert (frame["null"] > frame["experts"]).all()


@pytest.mark.parametrize("rows", [100, 5000])
def test_a_gate_that_does_not_know_the_groups_is_its_null(make_rows, rows):
    random, frames = np.random.default_rng(0), []
    for _ in range(20):
        weights, groups = np.eye(16)[random.integers(0, 16, rows)], random.integers(0, 10, rows)
        frames.append(GroupSplit.of(make_rows(weights, groups={"position": groups})))
    for measure, null in (("experts", "null"), ("largest", "largest_null")):
        differences = [(frame[measure] - frame[null]).mean() for frame in frames]
        assert abs(np.mean(differences)) < 4 * np.std(differences) / 20**0.5


def test_groups_that_no_row_has_are_no_lines(make_rows):
    assert GroupSplit.of(make_rows(np.eye(2), groups={"class": [-1, -1]})).empty
