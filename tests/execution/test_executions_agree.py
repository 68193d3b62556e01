"""The stacked execution, and the automatic one, give the loop's outputs and gradients for any kind of expert."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import moebius as mb
from moebius.execution._pool import Pool
from moebius.execution.loop import Loop
from moebius.execution.stacked import Stacked
from moebius.kit.registry import find, kinds

loop = Loop()
stacked = Stacked()


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.GroupNorm(1, 2), nn.Flatten(), nn.Linear(32, 3))


# A function that makes an expert, and the shape of its rows.
EXPERTS = {
    "linear": (partial(mb.experts.Linear, 6, 4), (6,)),
    "linear, images": (partial(mb.experts.Linear, 16, 4), (1, 4, 4)),
    "linear, sequences": (partial(mb.experts.Linear, 6, 4), (2, 6)),
    "mlp": (partial(mb.experts.MLP, 6, 4, [5, 3], "tanh"), (6,)),
    "mlp, images": (partial(mb.experts.MLP, 16, 4), (1, 4, 4)),
    "mlp, sequences": (partial(mb.experts.MLP, 6, 4, [5, 3]), (3, 2, 6)),
    "ffn": (partial(mb.experts.FFN, 6, 8), (6,)),
    "ffn without bias": (partial(mb.experts.FFN, 6, 8, "swiglu", False), (6,)),
    "ffn, sequences": (partial(mb.experts.FFN, 6, 8, "geglu"), (3, 6)),
    "conv": (partial(mb.experts.Conv, 1, 4, 3, [2], [5]), (1, 4, 4)),
    "any module": (small_network, (1, 4, 4)),
    "image to image": (partial(nn.Conv2d, 1, 2, 3), (1, 4, 4)),
    "module with a buffer": (lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval(), (6,)),
}


def outputs_and_gradients(execution, experts, x, routing, upstream):
    """Outputs and the gradients of x and of each parameter."""
    experts, x = copy.deepcopy(experts), x.clone().requires_grad_()
    y = execution(experts, routing, x)
    (y * upstream(y)).sum().backward()
    return y.detach(), x.grad, {name: p.grad for name, p in nn.ModuleList(experts).named_parameters()}


def noise(y):
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)


@pytest.mark.parametrize("name", EXPERTS)
@pytest.mark.parametrize(("rows", "count"), [(5, 3), (3, 3), (1, 2), (7, 1), (0, 2)])
def test_stacked_is_the_loop(name, rows, count):
    torch.manual_seed(rows)
    make, shape = EXPERTS[name]
    experts = [make().double() for _ in range(count)]
    x, routing = torch.randn(rows, *shape).double(), mb.routers.Soft()(torch.randn(rows, count))
    ours = outputs_and_gradients(stacked, experts, x, routing, noise)
    readable = outputs_and_gradients(loop, experts, x, routing, noise)
    assert ours[0].shape[:2] == (rows, count)
    torch.testing.assert_close(ours, readable, rtol=1e-10, atol=1e-12)


@given(st.integers(0, 9), st.integers(1, 6), st.integers(1, 7), st.integers(1, 7), st.integers(1, 5))
def test_stacked_is_the_loop_for_any_shape(rows, count, features, classes, hidden):
    torch.manual_seed(rows)
    x, routing = torch.randn(rows, features).double(), mb.routers.Soft()(torch.randn(rows, count))
    for make in (
        lambda: mb.experts.Linear(features, classes),
        lambda: mb.experts.MLP(features, classes, [hidden]),
        lambda: mb.experts.FFN(features, hidden),
    ):
        experts = [make().double() for _ in range(count)]
        ours = outputs_and_gradients(stacked, experts, x, routing, noise)
        readable = outputs_and_gradients(loop, experts, x, routing, noise)
        torch.testing.assert_close(ours, readable, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EXPERTS)
def test_auto_is_the_loop(name):
    torch.manual_seed(0)
    make, shape = EXPERTS[name]
    experts, x = [make().double() for _ in range(3)], torch.randn(4, *shape).double()
    for router in (mb.routers.Soft(), mb.routers.Argmax()):
        routing = router(torch.randn(4, 3))
        ours = outputs_and_gradients(mb.execution.Auto(), experts, x, routing, noise)
        readable = outputs_and_gradients(loop, experts, x, routing, noise)
        torch.testing.assert_close(ours, readable, rtol=1e-10, atol=1e-12)


def test_experts_of_equal_shapes_keep_their_different_activations():
    torch.manual_seed(0)
    for experts in (
        [mb.experts.MLP(6, 4, [5], activation) for activation in ("relu", "tanh")],
        [mb.experts.FFN(6, 8, activation) for activation in ("gelu", "relu2")],
    ):
        x, routing = torch.randn(5, 6), mb.routers.Soft()(torch.randn(5, 2))
        torch.testing.assert_close(mb.execution.Auto()(experts, routing, x), loop(experts, routing, x))


def test_frozen_experts_stay_without_gradients():
    experts = [mb.experts.Linear(4, 3) for _ in range(2)]
    experts[0].requires_grad_(False)
    routing = mb.routers.Soft()(torch.zeros(5, 2))
    for kind in kinds("execution"):
        execution = find("execution", kind)()
        if execution.refuses(Pool(experts), routing, torch.zeros(5, 4)) is not None:
            continue
        _, _, gradients = outputs_and_gradients(execution, experts, torch.randn(5, 4), routing, noise)
        assert [gradients[f"{e}.linear.weight"] is None for e in range(2)] == [True, False]
