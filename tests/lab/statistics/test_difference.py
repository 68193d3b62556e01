import numpy as np
import pytest
from scipy import stats

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.difference import Difference, paired


def test_worked_literal():
    # d = 1, 2, 3: mean 2, s = 1, t = 2 √3 = 3.4641 with 2 degrees of freedom: p = .0742.
    difference = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (difference.mean, difference.count) == (2.0, 3)
    assert (difference.low, difference.high) == (pytest.approx(-0.4841377), pytest.approx(4.4841377))
    assert difference.p == pytest.approx(0.07417990)


def test_agrees_with_scipy_and_with_the_interval():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    difference = paired(a.tolist(), b.tolist(), level=0.9)
    test = stats.ttest_rel(a, b)
    assert difference.p == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.9)
    assert (difference.low, difference.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_seeds_are_paired_by_their_names():
    a, b = {0: 1.0, 1: 5.0, 2: 7.0, 9: 100.0}, {2: 5.0, 1: 4.0, 0: 0.0, 3: -100.0}
    assert paired(a, b) == paired([1.0, 5.0, 7.0], [0.0, 4.0, 5.0])
    assert paired(b, a).mean == -paired(a, b).mean


@pytest.mark.parametrize("count", [3, 5, 20])
def test_under_the_null_five_percent_are_called_different(count):
    """Pairs share a seed's part, which is much larger than what differs."""
    random = np.random.default_rng(count)
    shared = random.normal(size=(4000, count, 1)) * 10
    draws = shared + random.normal(size=(4000, count, 2))
    differences = [paired(each[:, 0].tolist(), each[:, 1].tolist()) for each in draws]
    rejected = [each.p < 0.05 for each in differences]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.01)
    # The interval leaves 0 out exactly where the test rejects.
    assert [not each.low <= 0 <= each.high for each in differences] == rejected


def test_pairs_are_sharper_than_two_intervals():
    random = np.random.default_rng(1)
    shared = random.normal(size=8)
    a, b = shared + 0.1 + random.normal(size=8) * 0.02, shared + random.normal(size=8) * 0.02
    assert paired(a.tolist(), b.tolist()).p < 0.01
    assert stats.ttest_ind(a, b).pvalue > 0.5


def test_differences_without_spread_have_no_test():
    assert paired([0.75], [0.5]) == Difference(0.25, None, None, None, 1)
    # .65 − .60 and .75 − .70 differ by rounding alone.
    difference = paired([0.65, 0.75], [0.60, 0.70])
    assert (difference.low, difference.high, difference.p) == (None, None, None)
    assert difference.mean == pytest.approx(0.05)
    assert paired([0.6, 0.7], [0.6, 0.7]) == Difference(0.0, None, None, 1.0, 2)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ({0: 1.0}, {1: 1.0})])
def test_what_it_refuses(a, b):
    with pytest.raises(ArgumentError, match="needs a value"):
        paired(a, b)
