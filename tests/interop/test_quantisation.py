"""Weights in int8, by torchao and by torch itself: as if each expert had been quantised alone."""

import copy
import logging
import warnings

import pytest
import torch
from torch import nn

import moebius as mb

METHODS = ("torchao", "torch")
QUIET = pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:torch.quantize_per_tensor:UserWarning",
)


@pytest.fixture(scope="module")
def torchao():
    """The library's room, whose import warns and logs of what it cannot load."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip("torchao.quantization", reason="pip install -e '.[dev]'")
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(params=METHODS)
def quantise(request):
    """Module → the same with int8 weights in what dense layers it has."""
    if request.param == "torch":
        return lambda module: torch.ao.quantization.quantize_dynamic(module.eval(), {nn.Linear}, torch.qint8)
    library = request.getfixturevalue("torchao")

    def quantised(module):
        module = copy.deepcopy(module).eval()
        library.quantize_(module, library.Int8WeightOnlyConfig())
        return module

    return quantised


def dense_layers(model):
    """Those outside of stacks, by name."""
    inside = {id(part) for stack in stacks(model) for part in stack.modules()}
    return [name for name, part in model.named_modules() if type(part) is nn.Linear and id(part) not in inside]


def by_hand(quantise, model):
    """Each dense layer quantised by itself."""
    model = copy.deepcopy(model).eval()
    for name in dense_layers(model):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, quantise(nn.Sequential(model.get_submodule(name)))[0])
    return model


def unstacked(model):
    """The documented line, for every mixture: its experts as modules of their own."""
    for part in model.modules():
        if isinstance(part, mb.Mixture) and isinstance(part.experts, mb.Stack):
            part.experts = nn.ModuleList(part.experts.unstacked())
    return model


def stacks(model):
    return [part for part in model.modules() if isinstance(part, mb.Stack)]


@QUIET
def test_it_computes_as_if_each_layer_had_been_quantised_alone(quantise, model, outputs):
    """Also the layers of a stack: it has none to quantise, so its experts stay as they are."""
    quantised = quantise(model)
    assert torch.equal(outputs(quantised), outputs(by_hand(quantise, model)))
    assert not torch.equal(outputs(quantised), outputs(model.eval()))
    for one, other in zip(stacks(quantised), stacks(model), strict=True):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@QUIET
def test_experts_that_are_no_longer_stacked_are_quantised_each(quantise, model, outputs):
    apart = unstacked(copy.deepcopy(model).eval())
    torch.testing.assert_close(outputs(apart), outputs(model.eval()))
    layers = dense_layers(apart)
    quantised = quantise(apart)
    assert not any(type(quantised.get_submodule(layer).weight) is nn.Parameter for layer in layers)
    assert torch.equal(outputs(quantised), outputs(by_hand(quantise, apart)))


@QUIET
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("rows", [64, 2, 1])
def test_a_readable_loop_says_the_same_within_the_error_of_int8(quantise, k, rows, batch):
    torch.manual_seed(0)
    experts = [mb.experts.FFN(8, 32) for _ in range(4)]
    gate = mb.gates.Linear(8, 4)
    moe = mb.Mixture(gate, experts, mb.routers.TopK(k)).eval()
    x = batch(rows=rows)[0]
    quantised = mb.Mixture(gate, [quantise(expert) for expert in experts], moe.router).eval()
    with torch.no_grad(), mb.record(quantised) as log:
        y = quantised(x)
    weights = log[""][-1].weights
    expected = torch.stack([weights[:, e, None] * expert(x) for e, expert in enumerate(quantised.experts)]).sum(0)
    # One scale for all rows of a call: rows that are quantised with other ones differ by a step of int8.
    torch.testing.assert_close(y, expected.detach(), rtol=0, atol=0.02)
    torch.testing.assert_close(y, moe(x).detach(), rtol=0, atol=0.02)
    assert not torch.equal(y, moe(x))
