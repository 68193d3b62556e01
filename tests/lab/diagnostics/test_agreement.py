import numpy as np
import pytest

from moebius.lab.diagnostics.agreement import agreement, table
from moebius.lab.report.gate_rows import GateRows


def test_experts_that_are_the_groups_under_other_names():
    groups = np.array([0, 1, 2] * 20)
    frame = agreement(np.eye(3)[(groups + 1) % 3], groups)
    assert frame[["adjusted_information", "purity", "groups", "experts"]].to_numpy().tolist() == [[1, 1, 3, 3]]


def test_random_experts_have_none_though_there_are_many():
    random = np.random.default_rng(0)
    groups = random.integers(0, 4, 2000)
    frame = agreement(np.eye(64)[random.integers(0, 64, 2000)], groups)
    assert frame["adjusted_information"].item() == pytest.approx(0, abs=0.01)


def test_two_groups_that_share_an_expert():
    groups = np.repeat([0, 1, 2, 3], 10)
    frame = agreement(np.eye(2)[groups // 2], groups)
    assert frame["purity"].item() == 0.5
    assert 0 < frame["adjusted_information"].item() < 1


def test_one_data_set_has_no_table():
    columns = (np.zeros(3, np.int64),) * 3
    rows = GateRows("test", *columns, ("a",), ("all",), "gate", np.eye(3))
    assert table(rows) is None
