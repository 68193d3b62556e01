import numpy as np
import pytest
from scipy import stats

from moebius.lab.statistics.holm import holm


def test_worked_literal():
    """Four hypotheses: .01 · 4, .02 · 3, .03 · 2 → not below the one before, .5 · 1."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])


def test_a_single_value_stays_and_none_counts_nowhere():
    assert holm([0.04]) == [0.04]
    assert holm([None, 0.04, None]) == [None, 0.04, None]
    assert holm([0.4, 0.9]) == [0.8, 0.9]
    assert holm([]) == []


def test_it_is_between_no_correction_and_bonferroni_and_keeps_the_order():
    values = np.random.default_rng(0).random(9)
    corrected = np.array(holm(values.tolist()))
    assert (values <= corrected).all()
    assert (corrected <= np.minimum(1, 9 * values)).all()
    assert (np.diff(corrected[values.argsort()]) >= 0).all()


def test_it_keeps_the_rate_of_a_family():
    """Ten models against one reference that is equal to all: tests that share the reference depend on each other."""
    random = np.random.default_rng(0)
    seeds = random.normal(size=(2000, 11, 6))
    p = stats.ttest_rel(seeds[:, 1:], seeds[:, :1], axis=2).pvalue
    corrected = np.array([holm(family) for family in p.tolist()])
    assert np.mean((p < 0.05).any(1)) > 0.2
    assert np.mean((corrected < 0.05).any(1)) <= 0.055


def test_it_finds_more_than_bonferroni():
    values = [0.01, 0.015, 0.02, 0.04]
    assert sum(value < 0.05 for value in holm(values)) > sum(4 * value < 0.05 for value in values)
