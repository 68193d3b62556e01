import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from moebius.lab.diagnostics import _null as null_module
from moebius.lab.diagnostics._null import balanced_loads, entropy_of, expected_information, information_of


@pytest.mark.parametrize(("rows", "experts", "k"), [(100, 5, 1), (100, 5, 2), (100_000, 8, 3), (50, 4, 4), (9, 1, 1)])
def test_loads_have_the_mean_and_variance_of_selections_without_replacement(rows, experts, k):
    loads, p = balanced_loads(rows, experts, k), k / experts
    assert loads.shape == (400, experts)
    np.testing.assert_allclose(loads.sum(1), rows * k)
    # 400 draws: a mean is off by less than five standard errors, a variance by less than half.
    spread = (rows * p * (1 - p)) ** 0.5
    np.testing.assert_allclose(loads.mean(0), rows * p, atol=5 * spread / 20 + 1e-9)
    np.testing.assert_allclose(loads.var(0).mean(), spread**2, rtol=0.15, atol=1e-9)


def test_the_expected_information_is_the_mean_over_permutations():
    random = np.random.default_rng(0)
    first, second = random.integers(0, 3, 40), random.integers(0, 4, 40)
    counts = np.zeros((3, 4))
    np.add.at(counts, (first, second), 1)
    permuted = [mutual_info_score(random.permutation(first), second) for _ in range(300)]
    assert expected_information(counts) == pytest.approx(np.mean(permuted), abs=4 * np.std(permuted) / 300**0.5)
    assert information_of(counts) == pytest.approx(mutual_info_score(first, second))


def test_of_many_rows_the_closed_form_is_that_of_all_permutations(monkeypatch):
    counts = np.outer([0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.4]) * 18_000
    exact = expected_information(counts)
    monkeypatch.setattr(null_module, "MOST_EXACT_ROWS", 0)
    assert expected_information(counts) == pytest.approx(exact, rel=0.01)


def test_labels_that_do_not_occur_change_nothing():
    counts = np.array([[5.0, 0, 1], [0, 0, 0], [2, 0, 7]])
    assert expected_information(counts) == pytest.approx(expected_information(counts[[0, 2]][:, [0, 2]]))
    assert entropy_of(np.zeros(3)) == 0
