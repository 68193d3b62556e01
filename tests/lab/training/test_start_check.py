"""Warnings before the first step."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.training import loop
from moebius.lab.training.engine import Engine, Member
from moebius.lab.training.settings import Settings
from moebius.lab.training.start_check import start_check


def mixture(gate=None, router=None):
    torch.manual_seed(0)
    facts = {"channels": 1, "size": 8}
    gate = mb.gates.Conv(**facts, experts=2, filters=[8], hidden=[8]) if gate is None else gate
    experts = [mb.experts.Conv(**facts, classes=3, filters=[8], hidden=[8]) for _ in range(2)]
    return mb.Mixture(gate, experts, router=router or mb.routers.Soft())


def warnings(model, x, folder="unused"):
    """Those of a first step, which is a forward of the rows here."""
    settings = Settings.model_validate({"precision": "fp32"})
    engine, texts = Engine([Member(lambda: model, settings, 0, Path(folder))]), []
    with start_check(engine, lambda run, text: texts.append(text)):
        engine.call(x, torch.zeros(len(x), dtype=torch.int64))
    return texts


@pytest.fixture
def images():
    return torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_raw_pixels_saturate_a_gate_and_what_is_advised_helps(images):
    (text,) = warnings(mixture(), images * 2550)
    assert text.startswith("saturated gate (gate) before the first step")
    assert "kind: standardised" in text
    assert warnings(mixture(), images) == []
    standardised = mb.gates.Standardised(mixture().gate, channels=1)
    assert warnings(mixture(standardised), images * 2550) == []


def test_gates_that_learn_nothing_and_sharp_routers_are_as_they_should_be(images):
    frozen = mixture()
    frozen.gate.requires_grad_(False)
    assert warnings(frozen, images * 2550) == []
    assert warnings(mixture(mb.gates.Uniform(experts=2)), images * 2550) == []
    # A router that picks one expert still says how probable each was.
    assert warnings(mixture(router=mb.routers.Switch(capacity=None)), images) == []


def test_dead_units_are_named(images):
    model = mixture()
    with torch.no_grad():
        for parameter in model.experts[1].network.dense.linears[0].parameters():
            parameter.fill_(-1.0)
    (text,) = warnings(model, images)
    assert text.startswith("dead units (experts.1.network.dense) before the first step: 8 of 8 relu units")
    with torch.no_grad():  # two of eight live
        model.experts[1].network.dense.linears[0].weight[:3] = 1.0
    assert warnings(model, images) == []


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), F.relu, torch.relu, torch.Tensor.relu_])
def test_every_relu_is_seen(relu):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.relu = nn.Linear(4, 8), nn.Linear(8, 3), relu

        def forward(self, x):
            return self.last(self.relu(self.first(x)))

    model = Network()
    nn.init.constant_(model.first.bias, -100.0)
    (text,) = warnings(model, torch.rand(16, 4))
    assert "8 of 8 relu units" in text


def test_nothing_stays_on_the_model(images):
    model = mixture()
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()]
    warnings(model, images)
    assert [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()] == hooks
    with pytest.raises(ArgumentError):  # nor after a step that fails, whose error is not hidden
        warnings(model, images[:, :, :4])
    assert [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()] == hooks


def of_start(caplog):
    return [record.message for record in caplog.records if "before the first step" in record.message]


def test_a_training_says_so_once(images, caplog):
    mb.fit(mixture(), (images * 2550, torch.arange(64) % 3), epochs=2)
    (text,) = of_start(caplog)
    assert text.startswith("saturated gate")


def test_the_look_leaves_the_bits_of_a_training_as_they_are(images, caplog, monkeypatch):
    weights = []
    for look in (loop.start_check, lambda *arguments: nullcontext()):
        monkeypatch.setattr(loop, "start_check", look)
        torch.manual_seed(0)
        gate = mb.gates.Conv(channels=1, size=8, experts=4, filters=[4], hidden=[4])  # scores, and scales of noise
        model = mixture(mb.gates.Standardised(gate, channels=1), router=mb.routers.NoisyTopK(k=1))
        weights.append(mb.fit(model, (images, torch.arange(64) % 3), epochs=2).model.state_dict())
    assert not of_start(caplog)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_each_run_of_a_cohort_is_looked_at(images):
    settings = Settings.model_validate({"precision": "fp32"})

    def build(scale):
        model = mixture()
        with torch.no_grad():
            for parameter in model.gate.parameters():
                parameter.mul_(scale)
        return model

    members = [Member(lambda scale=scale: build(scale), settings, 0, Path("unused")) for scale in (1.0, 100.0)]
    engine, texts = Engine(members), []
    with start_check(engine, lambda run, text: texts.append((run, text))):
        engine.call(torch.cat([images, images]), torch.zeros(128, dtype=torch.int64))
    ((run, text),) = texts
    assert run == 1
    assert text.startswith("saturated gate (gate)")
