"""Hooks and modes of one expert hold for it, in a list and in a stack, and for no other."""

import copy

import pytest
import torch
from torch import nn

import moebius as mb

POOLS = {"list": list, "stack": mb.Stack}
ROUTERS = {"soft": mb.routers.Soft(), "top2": mb.routers.TopK(2)}
EXPERTS = {
    "ffn": lambda: mb.experts.FFN(8, 6),
    "dropping": lambda: nn.Sequential(nn.Linear(8, 6), nn.Dropout(0.5), nn.Linear(6, 8)),
}


def mixture(pool="stack", expert="ffn", router="top2"):
    torch.manual_seed(0)
    experts = [EXPERTS[expert]() for _ in range(4)]
    return mb.Mixture(mb.gates.Linear(8, 4), POOLS[pool](experts), ROUTERS[router]), experts


def by_hand(weights, experts, x):
    return torch.stack([weights[:, e, None] * expert(x) for e, expert in enumerate(experts)]).sum(0)


HOOKS = {
    "forward": lambda part: part.register_forward_hook(lambda part, args, y: y + 1),
    "pre": lambda part: part.register_forward_pre_hook(lambda part, args: (args[0] / 2,)),
    "backward": lambda part: part.register_full_backward_hook(lambda part, into, out: (into[0] * 3,)),
    "backward_pre": lambda part: part.register_full_backward_pre_hook(lambda part, out: (out[0] * 3,)),
}


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("where", [lambda expert: expert, lambda expert: expert.outer], ids=["expert", "layer"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_on_one_expert(hook, where, pool, router, batch):
    """It acts, others are as they were, and it goes when it is removed; a copy of the mixture has it too."""
    moe, experts = mixture(pool, "ffn", router)
    experts = copy.deepcopy(experts)
    HOOKS[hook](where(experts[2]))
    before = said_and_gradients(moe, batch()[0])
    handle = HOOKS[hook](where(moe.experts[2]))
    twin = copy.deepcopy(moe)
    x = batch()[0].requires_grad_()
    with mb.record(moe) as log:
        moe(x)
    y = by_hand(log[""][-1].weights, experts, x)
    expected = y, *torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(said_and_gradients(moe, x), expected)
    torch.testing.assert_close(said_and_gradients(twin, x), expected)
    assert not torch.allclose(before[1], expected[1])
    handle.remove()
    torch.testing.assert_close(said_and_gradients(moe, x), before)


def said_and_gradients(moe, x):
    x = x.detach().clone().requires_grad_()
    y = moe(x)
    return y, *torch.autograd.grad(y.square().sum(), x)


@pytest.mark.parametrize("pool", POOLS)
def test_a_hook_sees_the_rows_of_its_expert(pool, batch):
    moe, _ = mixture(pool)
    seen = []
    moe.experts[2].register_forward_hook(lambda part, args, y: seen.append((type(part), args[0].detach())))
    x = batch(rows=64)[0]
    with mb.record(moe) as log:
        moe(x)
    ((kind, rows),) = seen
    assert kind is mb.experts.FFN
    torch.testing.assert_close(rows, x[log[""][-1].weights[:, 2] > 0])


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("pool", POOLS)
def test_the_mode_of_one_expert(pool, router, batch):
    """Expert 2 drops nothing, in two calls alike; `train()` of the whole brings it back."""
    moe, experts = mixture(pool, "dropping", router)
    x = batch(rows=64)[0]
    moe.train().experts[2].eval()
    runs = []
    for _ in range(2):
        with mb.record(moe, outputs=True) as log:
            moe(x)
        runs.append(log[""][-1].outputs)
    same = [torch.equal(runs[0][:, e], runs[1][:, e]) for e in range(4)]
    assert same == [False, False, True, False]
    torch.testing.assert_close(runs[0][:, 2], copy.deepcopy(experts[2]).eval()(x))
    assert moe.train().experts[2].training


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("pool", POOLS)
def test_a_hook_on_all_modules(pool, router, batch):
    """Counters of operations and profilers set such hooks; they meet the experts that computed."""
    moe, _ = mixture(pool, "ffn", router)
    y, seen = moe(batch()[0]), []

    def doubled(part, args, y):
        seen.append(type(part))
        return 2 * y if type(part) is mb.experts.FFN else None

    handle = nn.modules.module.register_module_forward_hook(doubled)
    try:
        torch.testing.assert_close(moe(batch()[0]), 2 * y)
    finally:
        handle.remove()
    assert seen.count(mb.experts.FFN) == 4
    torch.testing.assert_close(moe(batch()[0]), y)
