import numpy as np
import pytest
from scipy.stats import binomtest

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.interval import interval
from moebius.lab.statistics.row_interval import row_interval


def test_rows_that_are_right_or_wrong_have_wilsons_interval():
    scores = np.array([1.0] * 90 + [0.0] * 10)
    expected = binomtest(90, 100).proportion_ci(method="wilson")
    estimate = row_interval(scores)
    assert (estimate.mean, estimate.count) == (0.9, 100)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_other_scores_have_students_interval():
    scores = np.random.default_rng(0).normal(size=50)
    assert row_interval(scores) == interval(scores.tolist())


def test_no_rows_are_refused():
    with pytest.raises(ArgumentError, match="needs at least one value"):
        row_interval(np.array([]))
