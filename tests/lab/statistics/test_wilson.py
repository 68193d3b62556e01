import numpy as np
import pytest
from scipy.stats import binomtest

from moebius.lab.statistics.wilson import wilson


@pytest.mark.parametrize(("count", "hits"), [(10, 0), (10, 3), (400, 400)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_agrees_with_scipy(count, hits, level):
    expected = binomtest(hits, count).proportion_ci(level, method="wilson")
    ends = [float(end) for end in wilson(count, hits, level)]
    assert ends == pytest.approx([hits / count, expected.low, expected.high], abs=1e-9)


def test_arrays_are_intervals_side_by_side():
    share, low, high = wilson(np.array([10, 400]), np.array([3, 400]))
    for place, (count, hits) in enumerate([(10, 3), (400, 400)]):
        assert (share[place], low[place], high[place]) == pytest.approx([float(end) for end in wilson(count, hits)])
