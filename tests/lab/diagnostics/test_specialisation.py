import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from moebius.lab.diagnostics import Specialisation


def measure(make_rows, experts, groups, count=None):
    weights = np.eye(count or int(experts.max()) + 1)[experts]
    return Specialisation.of(make_rows(weights, groups={"class": groups})).iloc[0]


def test_worked_literal(make_rows):
    line = measure(make_rows, np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]))
    information = 0.5 * np.log(0.5 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / (0.5 * 0.75)) + 0.25 * np.log(2)
    assert line["information"] == pytest.approx(information)
    assert line[["purity", "purity_null", "groups", "experts", "rows"]].tolist() == [0.75, 0.75, 2, 2, 4]


@pytest.mark.parametrize("groups", [2, 5])
def test_of_a_perfect_partition_the_information_is_its_entropy(make_rows, groups):
    classes = np.repeat(np.arange(groups), np.arange(1, groups + 1) * 10)
    line = measure(make_rows, (classes + 1) % groups, classes)
    shares = np.bincount(classes) / len(classes)
    assert line["information"] == pytest.approx(-(shares * np.log(shares)).sum())
    assert line[["share", "purity"]].tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("rows", [300, 30_000])
def test_random_experts_have_what_chance_gives(make_rows, rows):
    random = np.random.default_rng(0)
    lines = [measure(make_rows, random.integers(0, 8, rows), random.integers(0, 5, rows)) for _ in range(20)]
    values = np.array([line["information"] for line in lines])
    assert values.mean() == pytest.approx(lines[0]["null"], abs=4 * values.std() / 20**0.5)


def test_agrees_with_the_measure_of_labels(make_rows):
    random = np.random.default_rng(2)
    classes = random.integers(0, 4, 500)
    experts = np.where(random.random(500) < 0.5, classes, random.integers(0, 6, 500))
    line = measure(make_rows, experts, classes, 6)
    assert line["information"] == pytest.approx(mutual_info_score(classes, experts))
    assert line["low"] < line["information"] < line["high"]


def test_equal_loads_are_no_specialisation(make_rows):
    experts = np.arange(6400) % 64
    line = measure(make_rows, experts, np.arange(6400) // 64 % 2)
    assert line["information"] == pytest.approx(0, abs=1e-9)


def test_one_group_tells_nothing(make_rows):
    line = measure(make_rows, np.array([0, 1, 1]), np.zeros(3, int))
    assert line[["information", "null", "share", "purity"]].tolist() == [0, 0, 0, 1]
