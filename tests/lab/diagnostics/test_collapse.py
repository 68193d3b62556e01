import numpy as np
import pytest

from moebius.lab.diagnostics.collapse import collapse, table
from moebius.lab.report.gate_rows import GateRows


def test_worked_literal():
    weights = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.4, 0.6, 0.0]])
    frame = collapse(weights, np.array([0, 0, 1]), ["mnist", "cifar"])
    assert frame["load"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert frame["rates"].tolist() == pytest.approx([1.25, 0.75, 0])
    assert frame["starved"].tolist() == [False, False, True]
    assert frame["ignored"].tolist() == [False, False, True]


def test_an_expert_may_win_nothing_and_still_weigh():
    frame = collapse(np.tile([0.55, 0.45], (5, 1)), np.zeros(5, dtype=np.int64), ["all"])
    assert frame.loc[1, ["starved", "ignored"]].tolist() == [True, False]


def test_a_small_data_set_of_its_own_keeps_an_expert_from_being_ignored():
    weights = np.vstack([np.tile([1.0, 0.0], (999, 1)), [[0.0, 1.0]]])
    frame = collapse(weights, np.array([0] * 999 + [1]), ["large", "small"])
    assert frame.loc[1, ["starved", "ignored"]].tolist() == [True, False]


@pytest.mark.parametrize("weights", [np.ones((4, 1)), np.full((4, 3), 1 / 3)])
def test_neither_one_expert_nor_a_uniform_gate_has_collapsed(weights):
    frame = collapse(weights, np.zeros(4, dtype=np.int64), ["all"])
    assert not frame["starved"].any()
    assert not frame["ignored"].any()


def test_a_negative_weight_counts_as_use():
    weights, zeros = np.tile([[-3.0, 1.0, 0.0]], (4, 1)), np.zeros(4, np.int64)
    frame = table(GateRows("test", zeros, zeros, zeros, ("cat", "dog"), ("all",), "gate", weights))
    assert frame["ignored"].tolist() == [False, False, True]
