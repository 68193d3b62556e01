"""What holds for every router; a new one is tested by being there."""

import inspect

import pytest
import torch
from torch.utils import _pytree as pytree

from moebius.registry import find, kinds
from moebius.routing import Router

EXPERTS = 4
SAMPLES = {"k": 2, "experts": EXPERTS, "temperature": 0.5, "capacity": 1.5}


def build(kind):
    component = find("routers", kind)
    named = [p for p in inspect.signature(component).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return component(**{p.name: SAMPLES[p.name] for p in named if p.default is p.empty})


def some_scores(rows, experts=EXPERTS, dtype=torch.float32):
    return torch.randn(rows, experts, generator=torch.Generator().manual_seed(rows), dtype=torch.float64).to(dtype)


pytestmark = pytest.mark.parametrize("kind", kinds("routers"))


@pytest.mark.parametrize(("rows", "experts"), [(7, 4), (1, 4), (0, 4), (7, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_gives_a_whole_routing_in_float32_at_least(kind, rows, experts, dtype):
    scores = some_scores(rows, experts, dtype)
    routing = build(kind)(scores)
    wide = torch.promote_types(dtype, torch.float32)
    for name in ("probs", "weights", "log_weights"):
        value = getattr(routing, name)
        assert value.shape == (rows, experts), name
        assert value.dtype == wide, name
        assert not value.isnan().any(), name
    assert torch.equal(routing.scores, scores)
    assert routing.experts == experts


def test_rows_sum_to_what_it_promises(kind):
    router = build(kind)
    if router.rows_sum_to is None:
        assert (router(some_scores(50)).weights >= 0).all()
    else:
        torch.testing.assert_close(router(some_scores(50)).weights.sum(-1), torch.full((50,), router.rows_sum_to))


def test_log_weights_are_the_log_of_weights(kind):
    routing = build(kind)(some_scores(50))
    torch.testing.assert_close(routing.log_weights.exp(), routing.weights)
    assert torch.equal(routing.log_weights == -torch.inf, routing.weights == 0)


def test_weights_are_exactly_zero_where_no_expert_was_chosen(kind):
    router, scores = build(kind), some_scores(50)
    routing = router(scores)
    assert ((routing.weights != 0).sum(-1) <= router.max_active(EXPERTS)).all()
    if routing.selection is None:
        return
    chosen = torch.zeros(50, EXPERTS)
    selection = routing.selection
    kept = selection.kept_A
    chosen.index_put_((selection.row_A[kept], selection.expert_A[kept]), selection.weight_A[kept], accumulate=True)
    torch.testing.assert_close(routing.weights, chosen)


def test_a_row_that_may_have_fewer_than_all_experts_comes_with_a_selection(kind):
    router = build(kind)
    if router.max_active(EXPERTS) < EXPERTS:
        selection = router(some_scores(9)).selection
        assert selection is not None
        assert len({len(part) for part in (selection.row_A, selection.expert_A, selection.weight_A)}) == 1


def test_rows_are_independent_where_it_says_so(kind):
    router, scores = build(kind).eval(), some_scores(20)
    if router.rows_independent:
        alone = torch.cat([router(scores[row : row + 1]).weights for row in range(20)])
        torch.testing.assert_close(alone, router(scores).weights)


def test_permuting_rows_permutes_weights(kind):
    router, scores, order = build(kind).eval(), some_scores(20), torch.arange(20).flip(0)
    torch.testing.assert_close(router(scores[order]).weights, router(scores).weights[order])


def test_permuting_experts_permutes_weights(kind):
    router, scores, order = build(kind).eval(), some_scores(20), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(router(scores[:, order]).weights, router(scores).weights[:, order])


def test_eval_is_deterministic(kind):
    router, scores = build(kind).eval(), some_scores(20)
    assert torch.equal(router(scores).weights, router(scores).weights)


def test_the_gate_is_trained_where_it_says_so(kind):
    router, scores = build(kind), some_scores(20).requires_grad_()
    weights = router(scores).weights
    if not router.trains_gate:
        assert not weights.requires_grad
        return
    (weights * torch.arange(EXPERTS)).sum().backward()
    assert scores.grad.isfinite().all()
    assert scores.grad.abs().sum() > 0


def test_gate_losses_reach_the_scores(kind):
    scores = some_scores(20).requires_grad_()
    build(kind)(scores).probs.square().sum().backward()
    assert scores.grad.abs().sum() > 0


def test_gradients_are_those_of_finite_differences(kind):
    router, scores = build(kind).eval(), some_scores(5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: router(s).probs, scores)
    if router.trains_gate:
        assert torch.autograd.gradcheck(lambda s: router(s).weights, scores)


def test_scores_of_minus_infinity_choose_nothing(kind):
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]]).requires_grad_()
    routing = build(kind)(scores)
    assert routing.probs[0, [0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    assert routing.weights[0, [0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    routing.probs.square().sum().backward()
    assert scores.grad.isfinite().all()


def test_the_routing_travels_as_a_pytree(kind):
    routing = build(kind)(some_scores(6))
    leaves, spec = pytree.tree_flatten(routing)
    assert torch.equal(pytree.tree_unflatten(leaves, spec).weights, routing.weights)


def test_is_a_router(kind):
    assert issubclass(find("routers", kind), Router)
