import numpy as np
import pytest

from moebius.lab.statistics.difference import paired
from moebius.lab.statistics.mcnemar import mcnemar
from moebius.lab.statistics.paired_rows import paired_rows


def test_right_or_wrong_is_tested_by_mcnemar():
    a, b = np.array([1, 1, 1, 1, 0, 0, 1.0]), np.array([0, 0, 0, 1, 0, 1, 1.0])
    difference = paired_rows(a, b)
    assert difference.mean == pytest.approx(2 / 7)
    assert difference.p == mcnemar(3, 1)
    assert difference.low == paired(a.tolist(), b.tolist()).low


def test_other_scores_are_tested_by_student():
    a, b = np.random.default_rng(0).normal(size=(2, 30))
    assert paired_rows(a, b) == paired(a.tolist(), b.tolist())


def test_two_equal_classifiers_are_seldom_told_apart():
    """Rows are as hard for one as for the other; each is right by chance on them."""
    random = np.random.default_rng(0)
    chance = random.random((2000, 1, 200))
    right = random.random((2000, 2, 200)) < chance
    differences = [paired_rows(a, b) for a, b in right.astype(float)]
    assert np.mean([each.p < 0.05 for each in differences]) == pytest.approx(0.05, abs=0.012)
    assert np.mean([each.low <= 0 <= each.high for each in differences]) == pytest.approx(0.95, abs=0.012)
