import numpy as np
import pytest

from moebius.lab.diagnostics.weight_histogram import weight_histogram


def test_worked_literal():
    weights = np.array([[0.05, 0.95], [0.5, 0.5], [1.0, 0.0]])
    frame = weight_histogram(weights, np.array([0, 0, 1]), ["a", "b"], bins=2)
    counts = frame.set_index(["group", "expert", "low"])["rows"].to_dict()
    assert counts == {
        ("a", 0, 0.0): 1, ("a", 0, 0.5): 1, ("a", 1, 0.0): 0, ("a", 1, 0.5): 2,
        ("b", 0, 0.0): 0, ("b", 0, 0.5): 1, ("b", 1, 0.0): 1, ("b", 1, 0.5): 0,
    }  # fmt: skip


def test_a_hard_gate_fills_the_two_outer_bins_only():
    weights = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    frame = weight_histogram(weights, np.zeros(30, dtype=np.int64), ["all"], bins=20)
    assert sorted(set(frame.loc[frame["rows"] > 0, "low"])) == pytest.approx([0.0, 0.95])


def test_shares_sum_to_one_for_each_group_and_expert():
    generator = np.random.default_rng(0)
    weights = generator.dirichlet([0.2] * 6, 1000).astype(np.float32)
    frame = weight_histogram(weights, generator.integers(0, 3, 1000), ["a", "b", "c"])
    np.testing.assert_allclose(frame.groupby(["group", "expert"])["share"].sum(), 1.0)


def test_agrees_with_numpy():
    weights = np.random.default_rng(2).dirichlet([1.0, 1.0], 400)
    frame = weight_histogram(weights, np.zeros(400, dtype=np.int64), ["all"], bins=10)
    rows = frame.loc[frame["expert"] == 0, "rows"]
    assert rows.tolist() == np.histogram(weights[:, 0], bins=10, range=(0, 1))[0].tolist()


@pytest.mark.parametrize(("weights", "low", "high"), [([[-1.0, 3.0]], -1.0, 3.0), ([[0.2, 1.0 + 1e-7]], 0.0, 1.0)])
def test_the_range_widens_for_activations_but_not_for_rounding(weights, low, high):
    frame = weight_histogram(np.array(weights), np.array([0]), ["all"], bins=4)
    assert (frame["low"].min(), frame["high"].max()) == (low, high)
    assert frame["rows"].sum() == 2
