import numpy as np
import pytest
from scipy import stats

from moebius.kit.errors import ArgumentError
from moebius.lab.statistics.mcnemar import mcnemar


def test_worked_literal():
    # 5 rows, all of one side: 2 · 1/32 − 1/32.
    assert mcnemar(5, 0) == mcnemar(0, 5) == 1 / 32
    assert mcnemar(4, 4) == mcnemar(0, 0) == 1


def test_it_is_the_exact_test_less_one_probability():
    exact = stats.binomtest(6, 20).pvalue
    assert mcnemar(6, 14) == pytest.approx(exact - stats.binom.pmf(6, 20, 0.5))


@pytest.mark.parametrize("discordant", [10, 40, 300])
def test_under_the_null_it_rejects_about_five_percent(discordant):
    right = np.random.default_rng(discordant).binomial(discordant, 0.5, 4000)
    rejected = np.mean([mcnemar(int(count), discordant - int(count)) < 0.05 for count in right])
    assert 0.015 < rejected < 0.062


def test_it_refuses_a_number_below_0():
    with pytest.raises(ArgumentError, match="at least 0"):
        mcnemar(-1, 2)
