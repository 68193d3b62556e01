"""Parts that are not updated are in evaluation mode: nobody learns from a blurred or drifting part."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.experts.adapter import Adapter
from moebius.lab.training.mixture_parts import parts
from moebius.lab.training.optimizer import set_modes

PARTS = ("gate", "experts")


def network(outputs):
    """A network that shows its mode: batch statistics that drift, and dropout that blurs."""
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, outputs))


def create():
    return mb.Mixture(network(2), [network(20), network(20)])


def watched(loop):
    """Epochs and steps in which the gate and the experts were in training mode."""
    seen = {part: [] for part in PARTS}
    for part, module in (("gate", loop.model.gate), ("experts", loop.model.experts[0])):
        # In evaluation the whole mixture is in evaluation mode; just steps are looked at.
        def look(module, inputs, part=part):
            if loop.model.training:
                seen[part].append(module.training)

        module.register_forward_pre_hook(look)
    return seen


@pytest.mark.parametrize(
    ("changes", "gate", "experts"),
    [
        ({}, [True] * 6, [True] * 6),
        ({"gate": {"freeze": True}}, [False] * 6, [True] * 6),
        ({"experts": {"freeze": True}}, [True] * 6, [False] * 6),
        # Three steps an epoch: step s begins at epoch (s − 1) / 3.
        ({"experts": {"start_epoch": 1}}, [True] * 6, [False] * 3 + [True] * 3),
        ({"gate": {"start_epoch": 0.5}}, [False] * 2 + [True] * 4, [True] * 6),
        (
            {"gate": {"period": 2, "phase": 1}, "experts": {"period": 2, "phase": 0}},
            [False] * 3 + [True] * 3,
            [True] * 3 + [False] * 3,
        ),
    ],
)
def test_modes_follow_what_trains(changes, gate, experts, small_data, settings, tmp_path, alone):
    data = small_data()
    loop = alone(create, data, settings(**changes), 0, tmp_path)
    seen = watched(loop)
    loop.train()
    assert seen == {"gate": gate, "experts": experts}


@pytest.mark.parametrize("part", PARTS)
def test_a_frozen_part_s_statistics_keep_their_bits(part, small_data, settings, tmp_path, alone):
    data = small_data()
    loop = alone(create, data, settings(**{part: {"freeze": True}}), 0, tmp_path)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}
    after = loop.train().model.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith(part), name


def test_turns_by_epoch(small_data, settings, tmp_path, alone):
    """Gate and experts take turns of an epoch; whoever has none keeps its bits."""
    data, seen = small_data(), []
    turns = settings(epochs=4, gate={"period": 2, "phase": 1}, experts={"period": 2, "phase": 0})

    def look(event):
        if event.kind == "epoch":
            seen.append({name: value.clone() for name, value in loop.model.state_dict().items()})

    loop = alone(create, data, turns, 0, tmp_path, listen=look)
    seen.append({name: value.clone() for name, value in loop.model.state_dict().items()})
    loop.train()
    for epoch in range(4):
        moving = ("experts", "gate")[epoch % 2]
        for name, value in seen[epoch + 1].items():
            assert torch.equal(value, seen[epoch][name]) != name.startswith(moving), (epoch, name)


def test_turns_resume_in_the_same_bits(small_data, settings, interrupted, tmp_path):
    data = small_data()
    turns = settings(epochs=3, gate={"start_epoch": 0.5}, experts={"period": 2, "phase": 0})
    uninterrupted = interrupted(tmp_path / "whole", create, data, turns)
    resumed = interrupted(tmp_path / "pieces", create, data, turns, (1, 2, 3))
    ours, theirs = uninterrupted.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert uninterrupted.metrics == resumed.metrics


@pytest.mark.parametrize("frozen", PARTS)
def test_gates_and_experts_of_mixtures_inside(frozen, settings):
    inner = mb.Mixture(network(2), [network(20), network(20)])
    model = mb.Mixture(network(2), [inner, network(20)])
    set_modes(model, settings(**{frozen: {"freeze": True}}), 0)
    gates, experts = [model.gate, inner.gate], [model.experts[1], *inner.experts]
    assert [part.training for part in gates] == [frozen != "gate"] * 2
    assert [part.training for part in experts] == [frozen != "experts"] * 3
    assert model.training
    assert inner.training


def test_a_frozen_adapter_is_in_evaluation_whatever_trains(settings):
    model = mb.Mixture(network(2), [Adapter(network(20), frozen=True), Adapter(network(20))])
    set_modes(model, settings(), 0)
    assert [part.training for part in (model.gate, *model.experts)] == [True, False, True]
    assert not any(part.training for part in model.experts[0].modules())
    assert len(parts(model)["experts"]) == len(list(model.experts[1].parameters()))
