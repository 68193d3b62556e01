"""Mixtures of stacked feed-forward experts give the same results by every execution that runs them.

The tests ask the registry for executions and each execution what it refuses: a new one is tested by its file alone.
"""

import pytest
import torch

import moebius as mb
from moebius.execution._pool import Pool
from moebius.kit.registry import find, kinds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def runs_in(kind, dtype):
    """Whether the execution runs such experts in a number format, where the router selects."""
    pool = Pool(mb.Stack([mb.experts.FFN(6, 5) for _ in range(4)]).to(DEVICE, dtype))
    routing = mb.routers.TopK(2)(torch.zeros(3, 4, device=DEVICE))
    return find("execution", kind)().refuses(pool, routing, torch.zeros(3, 6, device=DEVICE, dtype=dtype)) is None


IN_FLOAT32 = [kind for kind in kinds("execution") if runs_in(kind, torch.float32)]
IN_ANY_FORMAT = [kind for kind in kinds("execution") if kind in IN_FLOAT32 or runs_in(kind, torch.bfloat16)]
UNDER_AUTOCAST = pytest.mark.parametrize("kind", IN_ANY_FORMAT)
# All others are compared with the loop.
IN_MIXTURES = pytest.mark.parametrize("kind", [kind for kind in IN_FLOAT32 if kind != "loop"])
TOKENS = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def mixture(kind, router=None, combine=None, activation="gelu"):
    torch.manual_seed(1)
    router = mb.routers.TopK(2) if router is None else router
    gate = mb.gates.Linear(6, router.gate_outputs(4))
    experts = mb.Stack([mb.experts.FFN(6, 5, activation) for _ in range(4)])
    return mb.Mixture(gate, experts, router, combine, kind).to(DEVICE)


def compare_with_loop(kind, *parts, x=TOKENS, freeze=lambda moe: None, **tolerance):
    """A mixture's output and gradients, after a check that those with the loop are the same."""
    results = []
    for execution in (kind, "loop"):
        moe = mixture(execution, *parts)
        freeze(moe)
        rows = x.detach().requires_grad_(x.requires_grad)
        y = moe(rows)
        if y.requires_grad:
            y.square().sum().backward()
        results.append([y, rows.grad, *(parameter.grad for parameter in moe.parameters())])
    torch.testing.assert_close(*results, **tolerance)
    return results[0]


@IN_MIXTURES
@pytest.mark.parametrize("k", [1, 2, 4])
def test_tokens_and_rows_that_do_not_lie_together(kind, k):
    compare_with_loop(kind, mb.routers.TopK(k))
    strided = TOKENS.clone().requires_grad_().transpose(0, 1)[::2]
    assert not strided.is_contiguous()
    _, gradient, *_ = compare_with_loop(kind, mb.routers.TopK(k), x=strided)
    assert gradient.shape == (2, 3, 6)


@IN_MIXTURES
@pytest.mark.parametrize("combine", [mb.WeightedSum(), mb.LogMixture(), mb.HeadMaximum(), mb.HeadMean()])
def test_several_heads_and_other_ways_to_combine(kind, combine):
    compare_with_loop(kind, mb.routers.Heads(mb.routers.TopK(2), heads=2), combine)


@IN_MIXTURES
def test_rows_that_are_dropped(kind):
    compare_with_loop(kind, mb.routers.Switch(capacity=1.0))
    compare_with_loop(kind, mb.routers.ExpertChoice(capacity=1.0))


FREEZE = {
    "experts": lambda moe: moe.experts.requires_grad_(False),
    "a layer": lambda moe: [
        parameter.requires_grad_(False) for parameter in (moe.experts.inner_weight, moe.experts.inner_bias)
    ],
    "biases": lambda moe: moe.experts.outer_bias.requires_grad_(False),
    "gate": lambda moe: moe.gate.requires_grad_(False),
    "everything": lambda moe: moe.requires_grad_(False),
}


@IN_MIXTURES
@pytest.mark.parametrize("name", FREEZE)
@pytest.mark.parametrize("x", [TOKENS, TOKENS.clone().requires_grad_()])
def test_what_is_frozen_has_no_gradient_and_all_else_has_one(kind, name, x):
    _, x_gradient, *gradients = compare_with_loop(kind, x=x, freeze=FREEZE[name])
    assert (x_gradient is None) != x.requires_grad
    assert None in gradients


@IN_MIXTURES
def test_experts_that_no_row_chose_have_gradients_of_zero(kind):
    moe = mixture(kind, mb.routers.Argmax())
    moe.gate.linear.bias.data[2] = 100
    moe(TOKENS).sum().backward()
    for parameter in moe.experts.parameters():
        assert parameter.grad[2].count_nonzero() > 0
        assert parameter.grad[[0, 1, 3]].count_nonzero() == 0


@IN_MIXTURES
def test_all_outputs_can_be_recorded(kind):
    moe = mixture(kind)
    with mb.record(moe, outputs=True) as log:
        y = moe(TOKENS)
    expected = torch.stack([expert(TOKENS.flatten(0, 1)) for expert in moe.experts], 1)
    torch.testing.assert_close(log[""][0].outputs, expected)
    torch.testing.assert_close(y, moe(TOKENS))


@IN_MIXTURES
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_it_is_the_same(kind, mode):
    moe = mixture(kind)
    with mode():
        y = moe(TOKENS)
    assert not y.requires_grad
    torch.testing.assert_close(y, moe(TOKENS))


@UNDER_AUTOCAST
def test_autocast_multiplies_in_bf16_and_gives_gradients_in_float32(kind):
    exact = compare_with_loop("loop")
    with torch.autocast(DEVICE, torch.bfloat16):
        moe = mixture(kind)
        y = moe(TOKENS)
        assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    results = [y.float(), None, *(parameter.grad for parameter in moe.parameters())]
    assert all(gradient.dtype == torch.float32 for gradient in results[2:])
    for value, exact_value in zip(results, exact, strict=True):
        limit = 0.04 if value is None else 0.04 * max(1, exact_value.abs().max())
        assert value is None or (value - exact_value).abs().max() <= limit


@IN_MIXTURES
def test_autocast_leaves_float64_alone(kind):
    if not runs_in(kind, torch.float64):
        pytest.skip("it has no float64")
    moe, x = mixture(kind).double(), TOKENS.double()
    with torch.autocast(DEVICE, torch.bfloat16):
        y = moe(x)
    torch.testing.assert_close(y, moe(x), rtol=1e-10, atol=1e-12)


@IN_MIXTURES
def test_a_step_is_repeated_bit_by_bit(kind):
    if DEVICE == "cuda" and kind != "fused":
        pytest.skip("torch's own sums over rows have no order on a GPU")
    first, again = compare_with_loop(kind), compare_with_loop(kind)
    assert all(torch.equal(*values) for values in zip(first, again, strict=True) if values[0] is not None)


def second_derivatives(kind, dtype):
    """The gradients of a mixture without and with a graph, and the gradients of the latter."""
    torch.manual_seed(0)
    experts = mb.Stack([mb.experts.FFN(6, 5) for _ in range(4)])
    moe = mb.Mixture(mb.gates.Linear(6, 4), experts, mb.routers.TopK(2), execution=kind).to(DEVICE, dtype)
    x = TOKENS.flatten(0, 1).to(dtype).requires_grad_()
    leaves = [x, *moe.parameters()]
    plain = torch.autograd.grad(moe(x).square().sum(), leaves)
    graphed = torch.autograd.grad(moe(x).square().sum(), leaves, create_graph=True)
    total = sum(gradient.float().square().sum() for gradient in graphed)
    return plain, tuple(gradient.detach() for gradient in graphed), torch.autograd.grad(total, leaves)


@UNDER_AUTOCAST
def test_gradients_have_gradients_themselves(kind):
    """The rows reach the output through the experts and through the gate, and each way counts once."""
    dtype = torch.float64 if runs_in(kind, torch.float64) else torch.bfloat16
    # The squares of gradients in bf16 are summed, each number with a relative error of 2⁻⁹.
    limits = {"rtol": 0.1, "atol": 0.5} if dtype == torch.bfloat16 else {"rtol": 1e-9, "atol": 1e-9}
    plain, graphed, second = second_derivatives(kind, dtype)
    torch.testing.assert_close(plain, graphed, **limits)
    torch.testing.assert_close(second, second_derivatives("loop", dtype)[2], **limits)
