import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from moebius.lab.diagnostics import Agreement
from moebius.lab.report.gate_rows import GateRows


def test_experts_that_are_the_groups_under_other_names(make_rows):
    groups = np.array([0, 1, 2] * 20)
    frame = Agreement.of(make_rows(np.eye(3)[(groups + 1) % 3], groups={"domain": groups}))
    measures = frame[["adjusted_information", "purity", "groups", "experts"]].to_numpy().tolist()
    assert measures == [pytest.approx([1, 1, 3, 3])]


def test_random_experts_have_none_though_there_are_many(make_rows):
    random = np.random.default_rng(0)
    groups = random.integers(0, 4, 2000)
    frame = Agreement.of(make_rows(np.eye(64)[random.integers(0, 64, 2000)], groups={"domain": groups}))
    assert frame["adjusted_information"].item() == pytest.approx(0, abs=0.01)


def test_two_groups_that_share_an_expert(make_rows):
    groups = np.repeat([0, 1, 2, 3], 10)
    frame = Agreement.of(make_rows(np.eye(2)[groups // 2], groups={"domain": groups}))
    assert frame["purity"].item() == 0.5
    assert 0 < frame["adjusted_information"].item() < 1


@pytest.mark.parametrize(("experts", "groups", "rows"), [(1, 1, 5), (1, 3, 9), (4, 1, 9), (4, 3, 50), (9, 2, 3)])
def test_agrees_with_the_measure_of_labels(make_rows, experts, groups, rows):
    random = np.random.default_rng(experts)
    label, best = random.integers(0, groups, rows), random.integers(0, experts, rows)
    frame = Agreement.of(make_rows(np.eye(experts)[best], groups={"class": label}), by="class")
    expected = adjusted_mutual_info_score(label, best)
    assert frame["adjusted_information"].item() == pytest.approx(expected, abs=1e-9)


def test_one_data_set_has_no_table():
    columns = (np.zeros(3, np.int64),) * 3
    assert Agreement.table(GateRows("test", *columns, ("a",), ("all",), "gate", np.eye(3))) is None
