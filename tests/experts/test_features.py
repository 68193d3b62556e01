"""The features that a network's layer gets."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError


@pytest.mark.parametrize(
    ("network", "layer"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3)), "3"),
        (mb.experts.MLP(64, 3, hidden=[6]), None),
        (mb.experts.Conv(1, 8, 3, filters=[4], hidden=[5]), None),
        (mb.experts.VGG(1, 8, 3, filters=[[4]], dropout=0, hidden=[5]), None),
    ],
)
def test_they_are_what_the_layer_gets(network, layer):
    network.eval()
    layer = layer or [name for name, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    features = mb.experts.Features(network, layer)
    x, before = torch.rand(7, 1, 8, 8), {name: id(module) for name, module in network.named_modules()}
    inputs = features(x)
    assert torch.equal(network.get_submodule(layer)(inputs), network(x))
    assert {name: id(module) for name, module in network.named_modules()} == before


def test_they_pass_gradients_to_all_before_the_layer():
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    mb.experts.Features(network, "2")(torch.rand(5, 4)).sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert network[2].weight.grad is None


def test_what_gives_no_features_is_refused():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(ArgumentError, match="needs the path of a layer of the Sequential"):
        mb.experts.Features(network, "7")
    with pytest.raises(ArgumentError, match="one vector for each row"):
        mb.experts.Features(network, "1")(torch.rand(2, 5, 4))
