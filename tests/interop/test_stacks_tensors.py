"""What parametrisations, pruning and hooks do to a stack's own tensors holds for its experts, one and all."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import moebius as mb

X = torch.randn(16, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Tripled(nn.Module):
    def forward(self, weight):
        return 3 * weight


# Each changes `inner_weight` (E, H, D); what it has become is the stack's attribute.
CHANGES = {
    "parametrised": lambda stack: parametrize.register_parametrization(stack, "inner_weight", Tripled()),
    "weight_norm": lambda stack: parametrizations.weight_norm(stack, "inner_weight", dim=0),
    "pruned": lambda stack: prune.l1_unstructured(stack, "inner_weight", amount=0.5),
    "pruned to the end": lambda stack: prune.remove(prune.l1_unstructured(stack, "inner_weight", 0.5), "inner_weight"),
}
UNDO = {
    "parametrised": lambda stack: parametrize.remove_parametrizations(stack, "inner_weight"),
    "weight_norm": lambda stack: parametrize.remove_parametrizations(stack, "inner_weight"),
    "pruned": lambda stack: prune.remove(stack, "inner_weight"),
}


def mixture(router):
    torch.manual_seed(0)
    experts = [mb.experts.FFN(8, 6) for _ in range(4)]
    moe = mb.Mixture(mb.gates.Linear(8, 4), mb.Stack(experts), router).double()
    return moe, [expert.double() for expert in experts]


def copied(stack, experts):
    """The experts with what the stack's tensors are at this moment."""
    with torch.no_grad():
        for number, expert in enumerate(experts):
            for name, parameter in expert.named_parameters():
                parameter.copy_(getattr(stack, name.replace(".", "_"))[number])
    return experts


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2), mb.routers.TopK(1)])
@pytest.mark.parametrize("rows", [16, 1])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tensor(change, rows, router):
    moe, experts = mixture(router)
    before = moe(X[:rows])
    CHANGES[change](moe.experts)
    with torch.no_grad():
        # So that weights of a norm are no longer those that they were made of.
        for parameter in moe.experts.parameters():
            parameter.mul_(1.5)
    with mb.record(moe) as log:
        y = moe(X[:rows])
    weights = log[""][-1].weights
    # Only now: pruning renews its tensor when the stack is called.
    experts = copied(moe.experts, experts)
    expected = torch.stack([weights[:, e, None] * expert(X[:rows]) for e, expert in enumerate(experts)]).sum(0)
    torch.testing.assert_close(y, expected)
    assert not torch.allclose(y, before)
    torch.testing.assert_close(moe.experts[2](X), experts[2](X))
    y.square().sum().backward()
    assert all(parameter.grad.count_nonzero() for parameter in moe.experts.parameters())
    if change in UNDO:
        UNDO[change](moe.experts)
        torch.testing.assert_close(moe(X[:rows]), expected)


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1)])
def test_a_hook_on_a_stack_is_called_once_a_forward(router):
    moe, _ = mixture(router)
    y, called = moe(X), []
    handles = [
        moe.experts.register_forward_pre_hook(lambda stack, args: called.append("before")),
        moe.experts.register_forward_hook(lambda stack, args, y: called.append("after")),
    ]
    torch.testing.assert_close(moe(X), y)
    assert called == ["before", "after"]
    for handle in handles:
        handle.remove()
    moe(X)
    assert len(called) == 2


@pytest.mark.parametrize("hooked", [True, False])
@pytest.mark.parametrize("change", ["parametrised", "weight_norm", "pruned to the end"])
def test_a_copy_of_a_changed_stack_is_its_own(change, hooked):
    """Also where experts of the first were handed out, and with their hooks."""
    moe, _ = mixture(mb.routers.TopK(2))
    CHANGES[change](moe.experts)
    held = moe.experts[0]
    if hooked:
        held.register_forward_hook(lambda part, args, y: 2 * y)
    y, weight = moe(X), held.inner.weight.clone()
    twin = copy.deepcopy(moe)
    torch.testing.assert_close(twin(X), y)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert twin.experts[0] is not held
    torch.testing.assert_close(held.inner.weight, weight)
    torch.testing.assert_close(moe(X), y)
    assert not torch.allclose(twin(X), y)
