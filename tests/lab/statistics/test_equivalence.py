import numpy as np
import pytest
from scipy import stats

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.equivalence import equivalence


def test_agrees_with_two_one_sided_tests_of_scipy():
    a, b = np.random.default_rng(0).normal(0, 0.01, size=(2, 8))
    difference = paired(a.tolist(), b.tolist())
    below = stats.ttest_1samp(a - b, -0.02, alternative="greater").pvalue
    above = stats.ttest_1samp(a - b, 0.02, alternative="less").pvalue
    assert equivalence(difference, 0.02) == pytest.approx(max(below, above))
    assert equivalence(paired(b.tolist(), a.tolist()), 0.02) == pytest.approx(max(below, above))


def test_below_five_percent_is_where_the_ninety_percent_interval_lies_inside_the_margin():
    random = np.random.default_rng(1)
    results = set()
    for _ in range(300):
        values = random.normal(0.002, 0.006, 6).tolist()
        difference, narrow = paired(values, [0.0] * 6), paired(values, [0.0] * 6, level=0.9)
        inside = -0.008 < narrow.low < narrow.high < 0.008
        assert (equivalence(difference, 0.008) < 0.05) == inside
        results.add(inside)
    assert results == {True, False}


@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_difference_of_the_margin_is_called_level_in_at_most_five_percent(count):
    draws = np.random.default_rng(count).normal(0.005, 0.002, size=(3000, count))
    called = [equivalence(paired(each.tolist(), [0.0] * count), 0.005) < 0.05 for each in draws]
    assert np.mean(called) == pytest.approx(0.05, abs=0.012)


def test_no_finding_is_no_levelness():
    difference = paired([0.70, 0.72, 0.69], [0.71, 0.70, 0.70])
    assert difference.p > 0.5
    assert equivalence(difference, 0.005) > 0.05


def test_what_cannot_be_tested_and_what_it_refuses():
    assert equivalence(paired([0.7], [0.6]), 0.005) is None
    assert equivalence(paired([0.7, 0.8], [0.7, 0.8]), 0.005) is None
    with pytest.raises(ArgumentError, match="needs a number above 0"):
        equivalence(paired([0.7, 0.8], [0.7, 0.9]), 0.0)
