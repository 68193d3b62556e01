import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics.activation import activation


def test_worked_literal():
    weights = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=np.float32)
    frame = activation(weights, np.array([0, 0, 2]), ["mnist", "empty", "cifar"])
    assert frame["group"].tolist() == ["mnist", "mnist", "cifar", "cifar"]
    assert frame["expert"].tolist() == [0, 1, 0, 1]
    assert frame["rate"].tolist() == pytest.approx([0.7, 0.3, 0.1, 0.9])
    assert frame["rows"].tolist() == [2, 2, 1, 1]


def test_of_one_group_is_the_mean_over_rows():
    weights = np.random.default_rng(0).dirichlet([0.5] * 5, 100)
    frame = activation(weights, np.zeros(100, dtype=np.int64), ["all"])
    np.testing.assert_allclose(frame["rate"], weights.mean(0))


def test_rates_of_a_distribution_sum_to_one_per_group():
    generator = np.random.default_rng(1)
    weights = generator.dirichlet([0.3] * 4, 500)
    frame = activation(weights, generator.integers(0, 7, 500), [str(name) for name in range(7)])
    np.testing.assert_allclose(frame.groupby("group")["rate"].sum(), 1.0)


def test_a_group_without_a_name_is_refused():
    with pytest.raises(ArgumentError, match=r"groups: needs indices of the 2 names, 0 to 1, got 2"):
        activation(np.ones((1, 1)), np.array([2]), ["a", "b"])


def test_weights_that_are_no_numbers_are_refused_with_their_row():
    with pytest.raises(ArgumentError, match="row 1 has others"):
        activation(np.array([[1.0], [np.nan]]), np.array([0, 0]), ["a"])
