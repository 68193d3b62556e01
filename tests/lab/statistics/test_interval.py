import numpy as np
import pytest
from scipy import stats

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.interval import interval


def test_worked_literal():
    # s = 1, n = 3, t(.975, 2) = 4.302653: half width 2.484138.
    estimate = interval([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.median, estimate.count) == (2.0, 2.0, 3)
    assert (estimate.low, estimate.high) == (pytest.approx(-0.4841377), pytest.approx(4.4841377))


def test_agrees_with_scipy():
    values = [0.633, 0.629, 0.641, 0.622, 0.630]
    low, high = stats.t.interval(0.9, 4, loc=np.mean(values), scale=stats.sem(values))
    estimate = interval(values, level=0.9)
    assert (estimate.low, estimate.high) == (pytest.approx(low), pytest.approx(high))


def test_covers_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [estimate.low <= 0 <= estimate.high for estimate in map(interval, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_interval():
    estimate = interval([0.5])
    assert (estimate.mean, estimate.median, estimate.low, estimate.high) == (0.5, 0.5, None, None)


def test_the_median_resists_one_bad_seed():
    assert interval([0.6, 0.6, 0.1]).median == 0.6


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0], 0.0), ([1.0], 95.0)])
def test_what_it_refuses(values, level):
    with pytest.raises(ArgumentError, match="needs"):
        interval(values, level)
