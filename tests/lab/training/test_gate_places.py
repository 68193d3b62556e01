import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.recording import record
from moebius.kit.errors import ArgumentError
from moebius.lab.training.gate_places import find_gate, find_gates
from moebius.layers.cgc import CGC


def nested():
    inner = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)])
    return nn.Sequential(nn.Linear(4, 4), mb.Mixture(nn.Linear(4, 2), [inner, nn.Linear(4, 4)]))


def tasks():
    gates = {name: nn.Linear(4, 3) for name in ("first", "second")}
    experts = {name: [nn.Linear(4, 2) for _ in range(2)] for name in gates}
    return CGC(gates, experts, [nn.Linear(4, 2)])


@pytest.mark.parametrize("make", [nested, tasks])
def test_paths_are_those_that_gates_record_under(make):
    model = make()
    with record(model) as log:
        model(torch.randn(7, 4))
    assert {place.path for place in find_gates(model)} == set(log)
    assert all(place.count == log[place.path][0].experts for place in find_gates(model))


def test_a_gate_inside_an_expert_says_so():
    outer, inner = find_gates(nested())
    assert (outer.name, outer.inside) == ("1.gate", None)
    assert (inner.name, inner.inside) == ("1.experts.0.gate", ("1.gate", 0))


def test_a_tasks_gate_weighs_its_experts_first():
    place = find_gate(tasks(), "gates.second")
    assert place.task == "second"
    assert place.experts == ("experts.second.0", "experts.second.1", "shared.0")
    assert not place.is_single


def test_another_gate_is_put_into_the_place():
    model = tasks().eval()
    place, gate = find_gate(model, "gates.first"), nn.Linear(4, 3)
    place.put(gate=gate, router=mb.routers.TopK(1))
    assert model.gates["first"] is place.gate is gate
    assert isinstance(model.router["first"], mb.routers.TopK)
    assert not gate.training


def test_an_unknown_name_is_refused():
    with pytest.raises(ArgumentError, match="names no gate of the model") as caught:
        find_gate(nested(), "1.gat")
    assert "1.gate" in caught.value.fix
