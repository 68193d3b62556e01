import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics import Activation


def of_domains(make_rows, weights, groups, names=None):
    return Activation.of(make_rows(weights, groups={"domain": groups}, names={"domain": names} if names else {}))


def test_worked_literal(make_rows):
    weights = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]], dtype=np.float32)
    frame = of_domains(make_rows, weights, [0, 0, 2], ["mnist", "empty", "cifar"])
    assert frame["group"].tolist() == ["mnist", "mnist", "cifar", "cifar"]
    assert frame["expert"].tolist() == [0, 1, 0, 1]
    assert frame["rate"].tolist() == pytest.approx([0.7, 0.3, 0.1, 0.9])
    assert frame["rows"].tolist() == [2, 2, 1, 1]
    assert frame["null"].tolist() == pytest.approx([0.5] * 4)


def test_of_one_group_is_the_mean_over_rows_and_its_null(make_rows):
    weights = np.random.default_rng(0).dirichlet([0.5] * 5, 100)
    frame = of_domains(make_rows, weights, np.zeros(100, dtype=np.int64))
    np.testing.assert_allclose(frame["rate"], weights.mean(0))
    np.testing.assert_allclose(frame["null"], frame["rate"])


def test_rates_of_a_distribution_sum_to_one_per_group(make_rows):
    generator = np.random.default_rng(1)
    weights = generator.dirichlet([0.3] * 4, 500)
    frame = of_domains(make_rows, weights, generator.integers(0, 7, 500))
    np.testing.assert_allclose(frame.groupby("group")["rate"].sum(), 1.0)


def test_rows_without_a_group_are_left_out_and_every_grouping_has_its_lines(make_rows):
    groups = {"position": [0, 1, -1], "split": [0, 0, 1]}
    frame = Activation.of(make_rows([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], groups=groups, names={"split": ["a", "b"]}))
    lines = frame.groupby(["by", "group"], sort=False)["rows"].first()
    assert lines.to_dict() == {("position", "0"): 1, ("position", "1"): 1, ("split", "a"): 2, ("split", "b"): 1}
    assert frame["used"].tolist() == [1, 0, 0, 1, 0.5, 0.5, 0, 1]


def test_groups_that_come_later_count_as_empty_before(make_rows):
    measure = Activation()
    measure.update(make_rows([[1.0, 0.0]], groups={"position": [0]}))
    measure.update(make_rows([[0.0, 1.0]], groups={"position": [2]}))
    assert measure.frame()[["group", "rate"]].values.tolist() == [["0", 1.0], ["0", 0.0], ["2", 0.0], ["2", 1.0]]


def test_a_group_without_a_name_is_refused(make_rows):
    with pytest.raises(ArgumentError, match=r"groups: needs indices of the 2 names, 0 to 1, got 2"):
        of_domains(make_rows, np.ones((1, 1)), [2], ["a", "b"])


def test_weights_that_are_no_numbers_are_refused_with_their_row(make_rows):
    with pytest.raises(ArgumentError, match="row 1 has others"):
        of_domains(make_rows, np.array([[1.0], [np.nan]]), [0, 0], ["a"])


def test_rows_without_groups_are_refused_with_what_lacks(make_rows):
    with pytest.raises(ArgumentError, match="Activation reads groups, which these rows do not have"):
        Activation.of(make_rows([[1.0]]))
