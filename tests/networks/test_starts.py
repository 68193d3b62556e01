"""The starts of networks against the formulas of their papers, and their order of draws."""

import math

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find
from moebius.networks import STARTS, start_layers

IMAGES = {"channels": 2, "size": 8}
ROWS = {"features": 128}
GATES = {
    "linear": ROWS,
    "mlp": ROWS,
    "conv": {**IMAGES, "filters": [4], "hidden": [8]},
    "vgg": {**IMAGES, "filters": [[4]], "dropout": 0.0},
    "vae": {**IMAGES, "filters": [4]},
    "cosine": ROWS,
    "unet": {"channels": 2},
    "table": {**ROWS, "cardinalities": [3]},
}
EXPERTS = {name: GATES[name] for name in ("linear", "mlp", "conv", "vgg", "unet", "table")}


def made(room, kind, seed=0, **keywords):
    torch.manual_seed(seed)
    size = {"experts": 3} if room == "gates" else {"classes": 3}
    arguments = (GATES if room == "gates" else EXPERTS)[kind]
    return find(room, kind)(**arguments, **size, **keywords)


def layers_of(module):
    return [each for each in module.modules() if isinstance(each, nn.Linear | nn.Conv2d)]


NETWORKS = [("gates", kind) for kind in GATES] + [("experts", kind) for kind in EXPERTS]


@pytest.mark.parametrize(("room", "kind"), NETWORKS)
def test_keras_is_glorot_uniform_with_biases_of_0(room, kind):
    network = made(room, kind, init="keras")
    for layer in layers_of(network):
        receptive = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
        fan_in, fan_out = layer.weight.shape[1] * receptive, layer.weight.shape[0] * receptive
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert layer.weight.abs().max() <= bound
        if layer.weight.numel() > 200:
            assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.12)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize(("room", "kind"), NETWORKS)
def test_torch_is_what_the_layers_have_when_they_are_made(room, kind):
    default = "keras" if kind == "vgg" else "torch"
    first, second = made(room, kind), made(room, kind, init=default)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
    other = made(room, kind, init="torch" if kind == "vgg" else "keras")
    assert not all(map(torch.equal, first.parameters(), other.parameters()))


@pytest.mark.parametrize("init", [name for name in STARTS if name != "torch"])
@pytest.mark.parametrize(("room", "kind"), NETWORKS)
def test_the_order_of_draws_is_torchs_then_the_weights_in_order(room, kind, init):
    network = made(room, kind, init=init)
    readable = made(room, kind, init="torch")
    draw = {
        "keras": nn.init.xavier_uniform_,
        "he": nn.init.kaiming_normal_,
        "lecun": lambda weight: weight.copy_(torch.randn_like(weight) / math.sqrt(weight[0].numel())),
        "orthogonal": nn.init.orthogonal_,
    }[init]
    with torch.no_grad():
        for layer in layers_of(readable):
            draw(layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()
    for mine, other in zip(network.parameters(), readable.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_variances_of_normal_starts():
    layer = nn.Linear(400, 300)
    for init, variance in (("he", 2 / 400), ("lecun", 1 / 400)):
        start_layers(layer, init)
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.03)


def test_orthogonal_rows():
    layer = nn.Conv2d(3, 5, 3)
    start_layers(layer, "orthogonal")
    kernels = layer.weight.flatten(1)
    torch.testing.assert_close(kernels @ kernels.T, torch.eye(5), atol=1e-5, rtol=0)


def test_matrices_of_a_gated_block_begin_as_two():
    torch.manual_seed(0)
    expert = mb.experts.FFN(30, 50, activation="swiglu", init="keras")
    bound = math.sqrt(6 / (30 + 50))
    for matrix in expert.inner.weight.chunk(2):
        assert bound * 0.98 < matrix.abs().max() <= bound


def test_a_sparse_layer_starts_its_gate_and_its_experts():
    torch.manual_seed(0)
    layer = mb.layers.SparseFFN(8, 16, experts=4, k=1, shared=1, init="keras")
    for expert in [*layer.mixture.experts, layer.block]:
        assert not expert.inner.bias.any()
        assert expert.inner.weight.abs().max() <= math.sqrt(6 / 24)
    assert layer.mixture.gate.init == "keras"
    torch.manual_seed(0)
    first = mb.layers.SparseFFN(8, 16, experts=4, k=1)
    torch.manual_seed(0)
    second = mb.layers.SparseFFN(8, 16, experts=4, k=1, init="torch")
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_norms_and_embeddings_stay():
    torch.manual_seed(0)
    embedding, norm = nn.Embedding(3, 4), nn.BatchNorm2d(2)
    before = embedding.weight.clone()
    start_layers(nn.ModuleList([embedding, norm]), "orthogonal")
    assert torch.equal(embedding.weight, before)
    assert norm.weight.tolist() == [1, 1]


@pytest.mark.parametrize(("room", "kind"), NETWORKS)
def test_saved_and_loaded_it_is_the_same_network(room, kind, tmp_path):
    network = made(room, kind, init="orthogonal").eval()
    mb.save(network, tmp_path)
    again = mb.load(tmp_path)
    assert again.init == "orthogonal"
    assert all(map(torch.equal, network.parameters(), again.parameters()))


def test_an_unknown_start_is_refused():
    with pytest.raises(ArgumentError, match="init: needs one of torch, keras, he, lecun, orthogonal, got 'glorot'"):
        mb.experts.Linear(3, 2, init="glorot")
