import numpy as np
import pytest

from moebius.lab.diagnostics import Collapse
from moebius.lab.report.gate_rows import GateRows


def test_worked_literal(make_rows):
    weights = np.tile([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.4, 0.6, 0.0]], (20, 1))
    domains = np.tile([0, 0, 1], 20)
    frame = Collapse.of(make_rows(weights, groups={"domain": domains}, names={"domain": ["mnist", "cifar"]}))
    assert frame["load"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert frame["rates"].tolist() == pytest.approx([1.25, 0.75, 0])
    assert frame["starved"].tolist() == [False, False, True]
    assert frame["ignored"].tolist() == [False, False, True]
    assert frame["null"].tolist() == pytest.approx([1 / 3] * 3)
    assert frame["chance"][2] == pytest.approx((2 / 3) ** 60)


def test_64_experts_with_equal_loads_starve_none(make_rows):
    frame = Collapse.of(make_rows(np.eye(64)[np.arange(6400) % 64], k=1))
    assert frame["load"].max() < 0.02
    assert not frame["starved"].any()


@pytest.mark.parametrize(("experts", "k"), [(2, 1), (64, 1), (64, 2), (256, 8)])
@pytest.mark.parametrize("rows", [1, 50, 3000])
def test_a_random_balanced_router_starves_nobody(make_rows, experts, k, rows):
    chosen = np.random.default_rng(0).random((rows, experts)).argsort(1)[:, :k]
    weights = np.zeros((rows, experts), np.float32)
    np.put_along_axis(weights, chosen, 1 / k, 1)
    frame = Collapse.of(make_rows(weights, k=k))
    assert not (frame["starved"] | frame["ignored"]).any()
    assert frame["null"].tolist() == pytest.approx([k / experts] * experts)


def test_an_expert_that_is_always_second_is_not_starved(make_rows):
    weights = np.zeros((400, 8))
    weights[np.arange(400), np.arange(400) % 7] = 0.6
    weights[:, 7] = 0.4
    frame = Collapse.of(make_rows(weights, k=2))
    assert frame["load"][7] == 0
    assert not frame["starved"].any()


def test_an_expert_may_win_nothing_and_still_weigh(make_rows):
    frame = Collapse.of(make_rows(np.tile([0.55, 0.45], (20, 1))))
    assert frame.loc[1, ["starved", "ignored"]].tolist() == [True, False]


def test_a_small_data_set_of_its_own_keeps_an_expert_from_being_ignored(make_rows):
    weights = np.vstack([np.tile([1.0, 0.0], (999, 1)), [[0.0, 1.0]]])
    frame = Collapse.of(make_rows(weights, groups={"domain": np.array([0] * 999 + [1])}))
    assert frame.loc[1, ["starved", "ignored"]].tolist() == [True, False]


@pytest.mark.parametrize("weights", [np.ones((40, 1)), np.full((40, 3), 1 / 3)])
def test_neither_one_expert_nor_a_uniform_gate_has_collapsed(make_rows, weights):
    frame = Collapse.of(make_rows(weights))
    assert not frame["starved"].any()
    assert not frame["ignored"].any()


def test_a_negative_weight_counts_as_use():
    weights, zeros = np.tile([[-3.0, 1.0, 0.0]], (40, 1)), np.zeros(40, np.int64)
    frame = Collapse.table(GateRows("test", zeros, zeros, zeros, ("cat", "dog"), ("all",), "gate", weights))
    assert frame["ignored"].tolist() == [False, False, True]
    assert frame["rates"].tolist() == [-3.0, 1.0, 0.0]
