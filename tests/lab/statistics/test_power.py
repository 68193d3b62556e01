import numpy as np
import pytest
from scipy import stats

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.power import equivalence_power, power, sd_interval, seeds_for_equivalence, seeds_needed


@pytest.mark.parametrize("seeds", [3, 5, 14])
@pytest.mark.parametrize("level", [0.05, 0.05 / 7])
def test_power_is_the_share_of_studies_that_find_the_difference(seeds, level):
    draws = np.random.default_rng(seeds).normal(0.005, 0.006, (40_000, seeds))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert power(0.005, 0.006, seeds, level) == pytest.approx((p < level).mean(), abs=0.01)
    assert power(-0.005, 0.006, seeds, level) == power(0.005, 0.006, seeds, level)


@pytest.mark.parametrize("seeds", [3, 5, 14])
def test_equivalence_power_is_the_share_of_studies_that_show_it(seeds):
    draws = np.random.default_rng(seeds).normal(0.001, 0.006, (40_000, seeds))
    below = stats.ttest_1samp(draws, -0.005, axis=1, alternative="greater").pvalue
    above = stats.ttest_1samp(draws, 0.005, axis=1, alternative="less").pvalue
    expected = (np.maximum(below, above) < 0.05).mean()
    assert equivalence_power(0.005, 0.006, seeds, difference=0.001) == pytest.approx(expected, abs=0.01)


def test_power_is_that_of_the_noncentral_t():
    for seeds, noncentrality, level in [(3, 1.5, 0.05), (5, 3.0, 0.001), (30, 2.5, 0.05 / 13), (200, 4.0, 0.01)]:
        critical = stats.t.isf(level / 2, seeds - 1)
        expected = stats.nct.sf(critical, seeds - 1, noncentrality) + stats.nct.cdf(-critical, seeds - 1, noncentrality)
        assert power(noncentrality / seeds**0.5, 1.0, seeds, level) == pytest.approx(expected, abs=1e-4)


def test_without_a_difference_power_is_the_level():
    assert power(0.0, 0.006, 5, 0.01) == pytest.approx(0.01, abs=1e-4)


def test_power_stays_a_number_where_series_fail():
    for seeds in (2, 5, 31, 1001, 50_001):
        for noncentrality in (0.1, 5, 20, 34, 100):
            assert 0 < power(noncentrality / seeds**0.5, 1.0, seeds, 0.001) <= 1


@pytest.mark.parametrize(("chance", "seeds"), [(power, seeds_needed), (equivalence_power, seeds_for_equivalence)])
@pytest.mark.parametrize("level", [0.05, 0.05 / 13])
def test_seeds_are_the_fewest_that_have_the_power(chance, seeds, level):
    for sd in (0.0001, 0.006, 0.05):
        number = seeds(0.005, sd, 0.8, level)
        assert chance(0.005, sd, number, level) >= 0.8
        assert number == 2 or chance(0.005, sd, number - 1, level) < 0.8


def test_the_interval_of_a_standard_deviation_covers_it():
    draws = np.random.default_rng(0).normal(0, 2.0, (4000, 5))
    ends = [sd_interval(float(sd), 5) for sd in draws.std(1, ddof=1)]
    assert np.mean([low <= 2.0 <= high for low, high in ends]) == pytest.approx(0.95, abs=0.012)


def test_what_they_refuse():
    refused = [
        lambda: power(0.005, 0.0, 5),
        lambda: power(0.005, 0.006, 1),
        lambda: power(0.005, 0.006, 5, 0.0),
        lambda: equivalence_power(0.0, 0.006, 5),
        lambda: equivalence_power(0.005, 0.006, 1),
        lambda: seeds_needed(0.0, 0.006),
        lambda: seeds_needed(0.005, 0.006, 1.0),
        lambda: seeds_needed(1e-9, 1.0),
        lambda: seeds_for_equivalence(0.005, 0.006, 0.0),
        lambda: sd_interval(0.006, 1),
    ]
    for call in refused:
        with pytest.raises(ArgumentError) as error:
            call()
        assert error.value.fix
