import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics import task_use


def make_gate(scores):
    gate = nn.Linear(4, len(scores))
    nn.init.zeros_(gate.weight)
    gate.bias.data.copy_(torch.tensor(scores))
    return gate


def make_experts(count):
    return [nn.Linear(4, 4) for _ in range(count)]


def record(model):
    with mb.record(model) as log:
        model(torch.ones(5, 4))
        model(torch.ones(3, 4))
    return log


def test_worked():
    gates = {"click": make_gate([2.0, 1.0, 0.0]), "price": make_gate([0.0, 0.0, 4.0])}
    model = nn.Sequential(mb.layers.MultiGateMixture(gates, make_experts(3), router=mb.routers.TopK(2)))
    frame = task_use(model, record(model))
    click, price = torch.tensor([2.0, 1.0]).softmax(0).tolist(), torch.tensor([4.0, 0.0]).softmax(0).tolist()
    assert list(frame.columns) == ["layer", "task", "expert", "weight", "rows", "used", "alone"]
    assert frame["layer"].unique().tolist() == ["0"]
    assert frame["expert"].tolist() == ["0.experts.0", "0.experts.1", "0.experts.2"] * 2
    assert frame["weight"].tolist() == pytest.approx([*click, 0, price[1], 0, price[0]])
    assert frame["rows"].tolist() == [1, 1, 0, 1, 0, 1]
    # The second expert of price has a weight of .018, less than half of an even share, a sixth.
    assert frame["used"].tolist() == [True, True, False, False, False, True]
    assert frame["alone"].tolist() == frame["used"].tolist()


def test_the_threshold_is_in_even_shares():
    gates = {"click": make_gate([1.0, 0.0]), "price": make_gate([0.0, 0.0])}
    moe = mb.layers.MultiGateMixture(gates, make_experts(2))  # click: .73 and .27
    log = record(moe)
    assert task_use(moe, log, 0.5)["alone"].tolist() == [False] * 4
    assert task_use(moe, log, 0.6)["used"].tolist() == [True, False, True, True]
    assert task_use(moe, log, 0.6)["alone"].tolist() == [False, False, False, True]
    assert task_use(moe, log, 1.2)["alone"].tolist() == [True, False, False, False]


def test_in_levels_own_experts_are_alone_and_the_shared_gate_is_a_user():
    def level(is_last):
        gates = {task: make_gate([0.0, 0.0]) for task in ("click", "price")}
        gates |= {} if is_last else {"shared": make_gate([0.0, -9.0, 0.0])}
        return mb.layers.CGC(gates, {task: make_experts(1) for task in ("click", "price")}, make_experts(1))

    model = mb.layers.PLE([level(False), level(True)])
    frame = task_use(model, record(model))
    alone = frame[frame["alone"]]
    assert alone[["task", "expert"]].to_numpy().tolist() == [
        ["price", "levels.0.experts.price.0"],
        ["click", "levels.1.experts.click.0"],
        ["price", "levels.1.experts.price.0"],
    ]
    assert frame[frame["task"] == "shared"]["used"].tolist() == [True, False, True]


def test_a_log_without_tasks_is_refused():
    moe = mb.Mixture(nn.Linear(4, 2), make_experts(2))
    with pytest.raises(ArgumentError, match="log: needs routings of a layer with a gate for each task") as caught:
        task_use(moe, record(moe))
    assert "MultiGateMixture" in caught.value.fix
    with pytest.raises(ArgumentError, match="threshold: needs a number above 0"):
        task_use(moe, {}, 0)
