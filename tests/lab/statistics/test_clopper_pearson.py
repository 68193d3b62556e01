import pytest
from scipy.stats import binomtest

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.clopper_pearson import clopper_pearson


@pytest.mark.parametrize(("successes", "count", "level"), [(0, 5, 0.95), (5, 5, 0.95), (3, 20, 0.99), (400, 1000, 0.8)])
def test_agrees_with_scipy(successes, count, level):
    expected = binomtest(successes, count).proportion_ci(level, method="exact")
    assert clopper_pearson(successes, count, level) == pytest.approx((expected.low, expected.high))


def test_nobody_of_few_is_no_certainty():
    # (1 − p)⁵ = .025 and .05.
    assert clopper_pearson(0, 5) == pytest.approx((0, 1 - 0.025**0.2))
    assert clopper_pearson(0, 5, 0.90) == pytest.approx((0, 1 - 0.05**0.2))


@pytest.mark.parametrize(("count", "share"), [(5, 0.1), (20, 0.5), (20, 0.02)])
def test_it_covers_the_true_share_at_least_as_often_as_it_says(count, share):
    from scipy.stats import binom

    covered = 0.0
    for successes in range(count + 1):
        low, high = clopper_pearson(successes, count)
        covered += float(binom.pmf(successes, count, share)) * (low <= share <= high)
    assert covered >= 0.95


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (0, 0), (1, 5, 1.0)])
def test_what_it_refuses(arguments):
    with pytest.raises(ArgumentError):
        clopper_pearson(*arguments)
