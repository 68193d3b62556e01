import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.fieller import fieller


def test_its_ends_are_where_the_difference_is_just_not_shown():
    x, y = [0.012, 0.020, 0.016, 0.010], [0.011, 0.014, 0.012, 0.009]
    ratio = fieller(x, y)
    assert ratio.value == pytest.approx(sum(x) / sum(y))
    for end in (ratio.low, ratio.high):
        assert paired(x, [end * value for value in y]).p == pytest.approx(0.05)
    assert paired(x, [(ratio.low + 1e-6) * value for value in y]).p > 0.05


@pytest.mark.parametrize("sign", [1, -1])
def test_a_denominator_that_may_be_zero_has_no_bounds(sign):
    x = [0.012, 0.020, 0.016]
    assert fieller(x, [sign * 0.010, sign * 0.012, sign * 0.011]).low is not None
    unbounded = fieller(x, [sign * 0.030, -sign * 0.012, sign * 0.011])
    assert (unbounded.low, unbounded.high) == (None, None)


def test_seeds_are_paired_by_their_names():
    x, y = {0: 1.0, 1: 2.0, 2: 3.5, 9: 50.0}, {2: 3.0, 1: 2.5, 0: 2.0, 7: 1.0}
    assert fieller(x, y) == fieller([1.0, 2.0, 3.5], [2.0, 2.5, 3.0])


def test_it_covers_the_true_ratio():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        shared = random.normal(0, 0.002, 5)
        y = 0.012 + shared + random.normal(0, 0.002, 5)
        x = 0.75 * 0.012 + shared + random.normal(0, 0.002, 5)
        ratio = fieller(x.tolist(), y.tolist())
        covered.append(ratio.low is None or ratio.low <= 0.75 <= ratio.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_equal_values_have_no_spread_and_few_have_no_interval():
    ratio = fieller([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert fieller([1.0], [2.0]) is None
    assert fieller([1.0, 2.0], [1.0, -1.0]) is None
    with pytest.raises(ArgumentError, match="needs a value for each of the 2"):
        fieller([1.0, 2.0], [1.0])
