import numpy as np
import pytest

from moebius.lab.diagnostics.entropy_histogram import entropy_histogram


def test_worked_literal():
    # Entropies 0, ln 2 and ln 4 on four experts: bins [0, ln 2) and [ln 2, ln 4].
    weights = np.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    frame = entropy_histogram(weights, np.array([0, 0, 0]), ["all"], bins=2)
    assert frame["rows"].tolist() == [1, 2]
    assert frame["experts_low"].tolist() == pytest.approx([1, 2])
    assert frame["experts_high"].tolist() == pytest.approx([2, 4])
    assert frame["high"].tolist() == pytest.approx([np.log(2), np.log(4)])


def test_one_expert_has_one_bin():
    frame = entropy_histogram(np.ones((3, 1)), np.array([0, 0, 1]), ["a", "b"])
    assert frame[["group", "low", "high", "rows"]].values.tolist() == [["a", 0.0, 0.0, 2], ["b", 0.0, 0.0, 1]]


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
def test_does_not_depend_on_the_scale_of_a_row(scale):
    generator = np.random.default_rng(0)
    weights, groups = generator.dirichlet([0.4] * 5, 300), np.zeros(300, dtype=np.int64)
    plain = entropy_histogram(weights, groups, ["all"])
    assert entropy_histogram(weights * scale, groups, ["all"])["rows"].tolist() == plain["rows"].tolist()


def test_every_row_is_counted_once():
    generator = np.random.default_rng(3)
    frame = entropy_histogram(generator.dirichlet([1.0] * 20, 500), generator.integers(0, 2, 500), ["a", "b"])
    assert frame["rows"].sum() == 500
    np.testing.assert_allclose(frame.groupby("group")["share"].sum(), 1.0)
