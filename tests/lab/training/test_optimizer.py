from itertools import pairwise

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.model.build import build_model
from moebius.lab.recipe import load_recipe
from moebius.lab.training.mixture_parts import parts, trainable_parts
from moebius.lab.training.optimizer import PartSchedule, build_optimizer

NESTED = {
    "gate": {"kind": "mlp", "hidden": [4]},
    "experts": [{"kind": "linear"}, {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear"}}],
}
FACTS = {"features": 64, "channels": 1, "size": 8, "classes": 20, "domains": 2}


def test_parts_of_nested_mixtures():
    model = build_model(NESTED, FACTS)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    names_by_part = {part: [names[id(parameter)] for parameter in list_] for part, list_ in parts(model).items()}
    assert names_by_part["gate"] == [name for name in names.values() if "gate" in name.split(".")]
    assert {name.rsplit(".", 2)[0] for name in names_by_part["gate"]} >= {"experts.1.gate"}
    assert sorted(names_by_part["gate"] + names_by_part["experts"]) == sorted(names.values())


def test_each_part_has_its_own_learning_rate(settings):
    model = build_model(NESTED, FACTS)
    by_part = settings(gate={"lr": {"kind": "linear", "start": 1.0, "end": 0.0, "epochs": 2}}, experts={"lr": 0.5})
    optimizer = build_optimizer(model, by_part)
    PartSchedule(optimizer, trainable_parts(model), by_part).apply(0.5)
    assert {group["name"]: group["lr"] for group in optimizer.param_groups} == {"gate": 0.75, "experts": 0.5}
    plain = settings()
    optimizer = build_optimizer(model, plain)
    PartSchedule(optimizer, trainable_parts(model), plain).apply(0.5)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("all", 1e-2)]


def test_adam_is_torchs_adam(settings):
    model, twin = build_model(NESTED, FACTS), build_model(NESTED, FACTS)
    twin.load_state_dict(model.state_dict())
    chosen = settings(optimizer={"kind": "adam", "lr": 1e-2, "betas": (0.8, 0.9), "weight_decay": 0.01})
    optimizer = build_optimizer(model, chosen)
    expected = torch.optim.Adam(twin.parameters(), lr=1e-2, betas=(0.8, 0.9), weight_decay=0.01)
    x, labels = torch.rand(30, 1, 8, 8), torch.arange(30) % 20
    for _ in range(5):
        for network, steps in ((model, optimizer), (twin, expected)):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(network(x), labels).backward()
            steps.step()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("part", ["gate", "experts"])
def test_a_frozen_part_keeps_its_bits(part, small_data, settings, build, tmp_path, alone):
    data = small_data()
    other_part = {"gate": "experts", "experts": "gate"}[part]
    decay = {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.1}
    frozen = settings(optimizer=decay, **{part: {"freeze": True}})
    loop = alone(build(data), data, frozen, 0, tmp_path)
    before = {name: [value.detach().clone() for value in values] for name, values in parts(loop.model).items()}
    after = parts(loop.train().model)
    assert all(torch.equal(a, b) for a, b in zip(before[part], after[part], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(before[other_part], after[other_part], strict=True))


@pytest.mark.parametrize(("start", "first"), [(0.0, 1), (1.0, 4), (1.5, 6), (5.0, None)])
def test_a_part_trains_from_its_start_epoch_on(start, first, small_data, settings, build, tmp_path, alone):
    data = small_data()
    seen = []

    def look(event):
        if event.kind == "step":
            seen.append([value.detach().clone() for value in parts(loop.model)["experts"]])

    loop = alone(build(data), data, settings(experts={"start_epoch": start}), 0, tmp_path, listen=look)
    seen.append([value.detach().clone() for value in parts(loop.model)["experts"]])
    loop.train()
    moved = [any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) for before, after in pairwise(seen)]
    # Three steps an epoch: step s begins at epoch (s − 1) / 3.
    assert moved == [first is not None and step >= first for step in range(1, 7)]


def test_a_later_start_of_all_parts_waits(small_data, settings, build, tmp_path, alone):
    data = small_data()
    late = settings(epochs=1, gate={"start_epoch": 1.0}, experts={"start_epoch": 1.0})
    loop = alone(build(data), data, late, 0, tmp_path)
    before = [value.detach().clone() for value in loop.model.parameters()]
    after = loop.train().model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_whose_only_parameters_are_frozen_is_refused(settings):
    model = build_model({"gate": {"kind": "uniform"}, "experts": {"kind": "linear"}}, FACTS)
    with pytest.raises(ArgumentError, match="leaves nothing to train"):
        build_optimizer(model, settings(experts={"freeze": True}))


def test_adams_eps_of_a_recipe_reaches_its_steps():
    recipe = {
        "name": "eps",
        "data": {"sets": [{"kind": "digits"}], "size": 8},
        "training": {"optimizer": {"kind": "adam", "lr": 0.1, "eps": 1.0}},
        "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear"}},
        "variants": {"one": {}, "other": {"training": {"optimizer": {"lr": 0.2}}}},
    }
    for variant, rate in zip(load_recipe(recipe).variants, (0.1, 0.2), strict=True):
        layer = mb.Mixture(mb.gates.Linear(2, 1), [mb.experts.Linear(2, 3)])
        optimizer = build_optimizer(layer, variant.training)
        weight = layer.experts[0].linear.weight
        before = weight.detach().clone()
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        optimizer.step()
        # The first step of Adam: both moments are corrected to the gradient and its square.
        torch.testing.assert_close(before - weight, torch.full_like(weight, rate * 0.5 / (0.5 + 1.0)))
