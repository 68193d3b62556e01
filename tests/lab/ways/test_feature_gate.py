"""The attentive mixture of trained networks: the networks as they are, in bodies and heads."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.lab.remedies import _fitting
from moebius.lab.training.call_model import call_model


@pytest.fixture
def composed(monkeypatch):
    """Three networks of unlike widths, inputs and classes, of which the first is right where a row begins bright."""
    monkeypatch.setattr(_fitting, "EPOCHS", 8)
    torch.manual_seed(0)
    networks = {
        "mlp": mb.experts.MLP(64, 4, hidden=[6]),
        "grey": mb.experts.Adapter(mb.experts.Conv(1, 4, 4, filters=[3], hidden=[]), size=4, channels=1),
        "two": mb.experts.Adapter(mb.experts.Linear(64, 2), classes=[3, 1], total=4, fill=-9.0),
    }
    x, y = torch.rand(200, 1, 8, 8), torch.randint(4, (200,))
    return networks, x, mb.compose(networks, (x, y), ways=["feature_gate"], progress=False)


def test_bodies_and_heads_give_what_the_networks_give(composed):
    networks, x, composition = composed
    model = composition.models["feature-gate"]
    for network, body, head in zip(networks.values(), model.bodies, model.heads, strict=True):
        assert torch.allclose(head(body(x)), call_model(network, x, torch.zeros(200, dtype=torch.long)), atol=1e-6)


def test_it_is_saved_and_exported(composed, tmp_path):
    _, x, composition = composed
    model = composition.models["feature-gate"]
    mb.save(model, tmp_path / "model")
    assert torch.equal(mb.load(tmp_path / "model")(x), model(x))
    # In a process without checks of shapes, which would look at the number of rows.
    code = "import sys, torch, moebius as mb; mb.export(mb.load(sys.argv[1]), torch.rand(8, 1, 8, 8), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, tmp_path / "model", tmp_path / "model.onnx"], check=True)
    assert (tmp_path / "model.onnx").stat().st_size


def test_a_network_without_a_last_dense_layer_has_none():
    networks = {"pooled": nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())}
    rows = torch.rand(60, 1, 8, 8), torch.randint(4, (60,))
    composition = mb.compose(networks, rows, ways=["uniform", "feature_gate"], progress=False)
    assert "feature-gate" not in composition.models
    assert "networks that end with a dense layer, and pooled does not" in str(composition)
