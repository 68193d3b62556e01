"""What holds for every router; a new one is tested by being there."""

import inspect

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from moebius.core.recording import record
from moebius.core.routing import Router
from moebius.kit.registry import find, kinds
from moebius.layers.mixture import Mixture
from moebius.routers.soft import Soft

EXPERTS = 4
SAMPLES = {"k": 2, "temperature": 0.5, "capacity": 1.5, "router": Soft(), "heads": 2, "classes": 3}


def build(kind, experts=EXPERTS):
    """The router as it is made with what it cannot do without; its noise the same in every test."""
    torch.manual_seed(0)
    component = find("routers", kind)
    named = [p for p in inspect.signature(component).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    given = {**SAMPLES, "experts": experts}
    return component(**{p.name: given[p.name] for p in named if p.default is p.empty})


def some_scores(rows, experts=EXPERTS, dtype=torch.float32, router=None):
    """What a gate says: one score per expert, or as many numbers as the router wants."""
    width = experts if router is None else router.gate_outputs(experts)
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows), dtype=torch.float64).to(dtype)


def expert_order(router, order):
    """The order of the gate's numbers when experts change places: the same in each block of E."""
    blocks = router.gate_outputs(EXPERTS) // EXPERTS
    return torch.cat([order + block * EXPERTS for block in range(blocks)])


pytestmark = pytest.mark.parametrize("kind", kinds("routers"))


@pytest.mark.parametrize(("rows", "experts"), [(7, 4), (1, 4), (0, 4), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_gives_a_whole_routing_in_float32_at_least(kind, rows, experts, dtype, training):
    router = build(kind, experts).train(training)
    routing = router(some_scores(rows, experts, dtype, router))
    wide = torch.promote_types(dtype, torch.float32)
    for name in ("probs", "weights", "log_weights"):
        value = getattr(routing, name)
        assert value.shape == (rows, experts), name
        assert value.dtype == wide, name
        assert not value.isnan().any(), name
    assert routing.scores.shape == (rows, experts)
    assert routing.experts == experts
    if routing.distribution:
        torch.testing.assert_close(routing.probs.sum(-1), torch.ones(rows, dtype=wide))


@pytest.mark.parametrize("training", [True, False])
def test_rows_sum_to_what_it_promises(kind, training):
    router = build(kind).train(training)
    weights = router(some_scores(50, router=router)).weights
    if router.rows_sum_to is None:
        assert (weights >= 0).all()
    else:
        torch.testing.assert_close(weights.sum(-1), torch.full((50,), router.rows_sum_to))


@pytest.mark.parametrize("training", [True, False])
def test_log_weights_are_the_log_of_weights(kind, training):
    router = build(kind).train(training)
    routing = router(some_scores(50, router=router))
    torch.testing.assert_close(routing.log_weights.exp(), routing.weights)
    assert torch.equal(routing.log_weights == -torch.inf, routing.weights == 0)


@pytest.mark.parametrize("training", [True, False])
def test_weights_are_exactly_zero_where_no_expert_was_chosen(kind, training):
    router = build(kind).train(training)
    routing = router(some_scores(50, router=router))
    assert ((routing.weights != 0).sum(-1) <= router.max_active(EXPERTS)).all()
    if routing.selection is None:
        return
    chosen = torch.zeros(50, EXPERTS)
    selection = routing.selection
    kept = selection.kept_A
    chosen.index_put_((selection.row_A[kept], selection.expert_A[kept]), selection.weight_A[kept], accumulate=True)
    torch.testing.assert_close(routing.weights, chosen)


def test_a_row_that_may_have_fewer_than_all_experts_comes_with_a_selection(kind):
    router = build(kind).eval()
    if router.max_active(EXPERTS) < EXPERTS:
        selection = router(some_scores(9, router=router)).selection
        assert selection is not None
        assert len({len(part) for part in (selection.row_A, selection.expert_A, selection.weight_A)}) == 1


def test_a_pair_of_row_and_expert_is_selected_once_at_most(kind):
    router = build(kind)
    selection = router(some_scores(30, router=router)).selection
    if selection is not None:
        pairs = (selection.row_A * EXPERTS + selection.expert_A)[selection.kept_A]
        assert len(pairs.unique()) == len(pairs)


def test_heads_and_classes_have_the_weights_for_their_view(kind):
    router = build(kind).eval()
    routing = router(some_scores(9, router=router))
    if routing.head_weights is not None:
        by_expert = routing.head_weights.sum(1).mean(-1)
        ratio = routing.weights.sum(-1, keepdim=True) / by_expert.sum(-1, keepdim=True)
        torch.testing.assert_close(by_expert * ratio, routing.weights)


def test_rows_are_independent_where_it_says_so(kind):
    router = build(kind).eval()
    scores = some_scores(20, router=router)
    if router.rows_independent:
        alone = torch.cat([router(scores[row : row + 1]).weights for row in range(20)])
        torch.testing.assert_close(alone, router(scores).weights)


def test_permuting_rows_permutes_weights(kind):
    router, order = build(kind).eval(), torch.arange(20).flip(0)
    scores = some_scores(20, router=router)
    torch.testing.assert_close(router(scores[order]).weights, router(scores).weights[order])


def test_permuting_experts_permutes_weights(kind):
    router, order = build(kind).eval(), torch.tensor([2, 0, 3, 1])
    scores = some_scores(20, router=router)
    changed = router(scores[:, expert_order(router, order)]).weights if router.interchangeable else None
    if changed is not None:
        torch.testing.assert_close(changed, router(scores).weights[:, order])


def test_eval_is_deterministic(kind):
    router = build(kind).eval()
    scores = some_scores(20, router=router)
    assert torch.equal(router(scores).weights, router(scores).weights)


def test_a_forward_moves_nothing_that_routes(kind):
    """Activation checkpoints repeat it, and the second has to route as the first did."""
    component = find("routers", kind)
    biased = {"bias_rate": 0.5, "experts": EXPERTS}
    router = component(2, **biased) if "bias_rate" in inspect.signature(component).parameters else build(kind)
    scores = some_scores(9, router=router)
    torch.manual_seed(0)
    first = router(scores)
    torch.manual_seed(0)
    assert torch.equal(router(scores).weights, first.weights)


def test_the_gate_is_trained_where_it_says_so(kind):
    router = build(kind)
    scores = some_scores(20, router=router).requires_grad_()
    weights = router(scores).weights
    if not router.trains_gate:
        assert not weights.requires_grad
        return
    (weights * torch.arange(EXPERTS)).sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad.abs().sum() > 0


def test_choosing_one_expert_still_trains_the_gate(kind):
    component = find("routers", kind)
    if "k" not in inspect.signature(component).parameters or not component.trains_gate:
        return
    named = {"k": 1, "experts": EXPERTS}
    router = component(**{name: named[name] for name in named if name in inspect.signature(component).parameters})
    scores = some_scores(20, router=router).requires_grad_()
    (router(scores).weights * torch.arange(EXPERTS)).sum().backward()
    assert (scores.grad.abs().sum(-1) > 0).any()


def test_gate_losses_reach_the_scores(kind):
    router = build(kind)
    scores = some_scores(20, router=router).requires_grad_()
    router(scores).probs.square().sum().backward()
    assert scores.grad.abs().sum() > 0


def test_gradients_are_those_of_finite_differences(kind):
    router = build(kind).eval()
    scores = some_scores(5, dtype=torch.float64, router=router)
    scores[:, 0] = scores[:, 0].abs() + 0.1  # `relu` passes a gradient on by decree where no score is positive
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: router(s).probs, scores)
    if router.trains_gate:
        assert torch.autograd.gradcheck(lambda s: router(s).weights, scores)


def test_scores_of_minus_infinity_choose_nothing(kind):
    router = build(kind).eval()
    if router.gate_outputs(EXPERTS) != EXPERTS or not router.interchangeable:
        return  # its numbers are no scores of single experts
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]]).requires_grad_()
    routing = router(scores)
    assert routing.probs[0, [0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert routing.weights[0, [0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    routing.probs.square().sum().backward()
    assert scores.grad.isfinite().all()


def test_the_routing_travels_as_a_pytree(kind):
    router = build(kind)
    routing = router(some_scores(6, router=router))
    leaves, spec = pytree.tree_flatten(routing)
    again = pytree.tree_unflatten(leaves, spec)
    assert torch.equal(again.weights, routing.weights)
    assert again.distribution == routing.distribution


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("rows", "experts"), [(9, 4), (1, 4), (0, 4), (5, 1)])
def test_in_a_mixture_loop_and_stacked_execution_agree_in_output_and_gradient(kind, rows, experts, training):
    """The loop over just the chosen experts is the same as all of them at once, of which the chosen are picked."""
    results = []
    for outputs in (False, True):
        router = build(kind, experts).double().train(training)
        gate = nn.Linear(5, router.gate_outputs(experts)).double()
        execution = "stacked" if outputs else "loop"
        pool = [nn.Linear(5, 3).double() for _ in range(experts)]
        moe = Mixture(gate, pool, router, execution=execution).train(training)
        x = torch.randn(rows, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
        torch.manual_seed(2)
        with record(moe, outputs=outputs) as log:
            y = moe(x)
        (y * torch.arange(3)).square().sum().backward()
        gradients = [p.grad for p in moe.parameters() if p.grad is not None]
        results.append((y.detach(), x.grad, gradients, log[""][0].weights.detach()))
        assert all(p.grad is not None for p in moe.experts.parameters())
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("k", [EXPERTS, EXPERTS + 2])
def test_all_experts_and_more_than_all_can_be_asked_for(kind, k):
    component = find("routers", kind)
    if "k" not in inspect.signature(component).parameters:
        return
    named = {"k": k, "experts": EXPERTS}
    router = component(**{name: named[name] for name in named if name in inspect.signature(component).parameters})
    routing = router(some_scores(9, router=router))
    assert router.max_active(EXPERTS) == EXPERTS
    assert routing.weights.shape == (9, EXPERTS)
    if router.rows_sum_to is not None:
        torch.testing.assert_close(routing.weights.sum(-1), torch.ones(9))


@pytest.mark.parametrize("training", [True, False])
def test_in_a_mixture_that_computes_in_bf16_it_decides_in_float32(kind, training):
    router = build(kind).train(training)
    moe = Mixture(nn.Linear(5, router.gate_outputs(EXPERTS)), [nn.Linear(5, 3) for _ in range(EXPERTS)], router)
    x = torch.randn(12, 5, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16), record(moe) as log:
        y = moe.train(training)(x)
    assert log[""][0].weights.dtype == torch.float32
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in moe.parameters() if p.grad is not None)


def test_in_a_mixture_permuting_rows_permutes_outputs(kind):
    router = build(kind).eval()
    moe = Mixture(nn.Linear(5, router.gate_outputs(EXPERTS)), [nn.Linear(5, 3) for _ in range(EXPERTS)], router).eval()
    x, order = torch.randn(12, 5, generator=torch.Generator().manual_seed(1)), torch.arange(12).flip(0)
    torch.testing.assert_close(moe(x[order]), moe(x)[order])


def test_says_what_it_drops_nothing_silently(kind):
    """Where some assignments are not kept, the router says so in `aux`, or its number of experts varies by design."""
    router = build(kind)
    routing = router(some_scores(40, router=router))
    if routing.selection is None or routing.selection.kept_A.all():
        return
    assert "dropped" in routing.aux or len(routing.selection.row_A) == 40 * EXPERTS


def test_is_a_router(kind):
    assert issubclass(find("routers", kind), Router)
