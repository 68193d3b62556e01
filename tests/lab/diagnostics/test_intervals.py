import numpy as np
import pytest

from moebius.lab.diagnostics._intervals import mean_interval
from moebius.lab.statistics.interval import interval


def test_the_interval_of_a_mean_is_that_of_its_values():
    values = np.random.default_rng(0).normal(3, 2, 12)
    expected = interval([*values])
    ends = [float(end) for end in mean_interval(12, values.sum(), (values**2).sum())]
    assert ends == pytest.approx([expected.mean, expected.low, expected.high])


def test_one_value_has_no_spread_and_equal_values_have_none():
    assert [float(end) for end in mean_interval(1, 2.0, 4.0)] == [2, -np.inf, np.inf]
    assert [float(end) for end in mean_interval(3, 6.0, 12.0)] == [2, 2, 2]
