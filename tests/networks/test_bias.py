"""`bias=False` of gates and experts: the same network as one whose biases are 0."""

import pytest
import torch

import moebius as mb
from moebius.core.stack import Stack
from moebius.kit.registry import find

IMAGES = {"channels": 2, "size": 8, "filters": [4, 5], "hidden": [6]}
CASES = [
    ("experts", "linear", {"features": 128}),
    ("experts", "mlp", {"features": 128, "hidden": [7, 6]}),
    ("experts", "conv", IMAGES),
    ("gates", "linear", {"features": 128}),
    ("gates", "mlp", {"features": 128, "hidden": [7, 6]}),
    ("gates", "conv", {**IMAGES, "activation": "relu"}),
]


def make(room, kind, arguments, **changes):
    torch.manual_seed(0)
    return find(room, kind)(**arguments, **{"experts" if room == "gates" else "classes": 3}, **changes)


@pytest.mark.parametrize(("room", "kind", "arguments"), CASES)
def test_it_is_the_network_with_biases_of_0(room, kind, arguments):
    bare, full = make(room, kind, arguments, bias=False), make(room, kind, arguments)
    names = [name for name, _ in bare.named_parameters()]
    assert names == [name for name, _ in full.named_parameters() if not name.endswith("bias")]
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            parameter.copy_(bare.get_parameter(name)) if name in names else parameter.zero_()
    results = []
    for network in (bare, full):
        x = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = network(x)
        weights = [network.get_parameter(name) for name in names]
        results.append((y, torch.autograd.grad(y.square().sum(), [x, *weights])))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(("room", "kind", "arguments"), CASES)
def test_it_is_saved_and_loaded(room, kind, arguments, tmp_path):
    network = make(room, kind, arguments, bias=False).eval()
    mb.save(network, tmp_path)
    x = torch.rand(3, 2, 8, 8)
    assert torch.equal(mb.load(tmp_path)(x), network(x))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("execution", ["stacked", "sorted", "gather", "dense"])
def test_stacks_without_biases_run_as_the_loop(kind, execution):
    results = []
    for name in (execution, "loop"):
        torch.manual_seed(0)
        stack = Stack.of(lambda: find("experts", kind)(6, 3, bias=False), 4)
        router = mb.routers.Soft() if execution == "stacked" else mb.routers.TopK(2)
        moe = mb.Mixture(mb.gates.Linear(6, 4), stack, router, execution=name)
        y = moe(torch.rand(9, 6, generator=torch.Generator().manual_seed(1)))
        results.append((y, torch.autograd.grad(y.square().sum(), [*moe.parameters()])))
    torch.testing.assert_close(*results)
