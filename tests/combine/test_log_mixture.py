"""log Σ_e w_e · softmax(y_e)."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import moebius as mb
from moebius.core.routing import Routing, Selection

LOG = mb.LogMixture()


def selected(weights, kept=None):
    """The routing of all pairs of row and expert (those of `kept`), in an order of its own."""
    rows, experts = weights.shape
    order = torch.randperm(rows * experts, generator=torch.Generator().manual_seed(0))
    row_A, expert_A = order // experts, order % experts
    kept_A = torch.ones_like(row_A, dtype=torch.bool) if kept is None else kept[row_A, expert_A]
    return Routing.from_selection(weights, weights, Selection(row_A, expert_A, weights[row_A, expert_A], kept_A))


def taken(values, routing):
    return values[routing.selection.row_A, routing.selection.expert_A]


def test_worked_literal():
    # softmax(0, ln 3) = (1/4, 3/4) and softmax(0, 0) = (1/2, 1/2), weights 2/5 and 3/5.
    values = torch.tensor([[[0.0, 3.0], [1.0, 1.0]]], dtype=torch.float64)
    values[0, 0, 1] = torch.tensor(3.0, dtype=torch.float64).log()
    routing = mb.routers.Soft()(torch.tensor([[0.4, 0.6]], dtype=torch.float64).log())
    torch.testing.assert_close(LOG(values, routing).exp(), torch.tensor([[0.4, 0.6]], dtype=torch.float64))


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5), st.floats(0.1, 10.0))
def test_it_is_minus_log_of_the_mixture_of_probabilities(rows, experts, classes, scale):
    torch.manual_seed(rows)
    values, scores = scale * torch.randn(rows, experts, classes).double(), torch.randn(rows, experts).double()
    target = torch.randint(classes, (rows,))
    direct = -(scores.softmax(-1).unsqueeze(-1) * values.softmax(-1)).sum(1).log()
    dense, sparse = mb.routers.Soft()(scores), selected(scores.softmax(-1))
    for y in (LOG(values, dense), LOG(taken(values, sparse), sparse)):
        torch.testing.assert_close(F.nll_loss(y, target, reduction="none"), direct[range(rows), target])
        torch.testing.assert_close(y.exp().sum(-1), torch.ones(rows, dtype=torch.float64))


def test_half_precision_is_computed_in_single():
    values, routing = torch.randn(4, 2, 3).bfloat16(), mb.routers.Soft()(torch.randn(4, 2).bfloat16())
    assert LOG(values, routing).dtype == torch.float32
    torch.testing.assert_close(LOG(values, routing), LOG(values.float(), routing))


def test_some_experts_of_a_row_are_the_dense_mixture_with_their_weights():
    torch.manual_seed(0)
    values, kept = torch.randn(6, 3, 4).double(), torch.rand(6, 3) < 0.6
    kept[:, 0] = True
    weights = torch.rand(6, 3).double()
    sparse = selected(weights, kept)
    dense = torch.where(kept, weights, 0).unsqueeze(-1).mul(values.softmax(-1)).sum(1).log()
    torch.testing.assert_close(LOG(taken(values, sparse), sparse), dense)


def test_one_expert_for_each_row_is_its_own_distribution_times_its_weight():
    torch.manual_seed(0)
    values, kept = torch.randn(4, 2, 3).double(), torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=torch.bool)
    sparse = selected(torch.full((4, 2), 0.5, dtype=torch.float64), kept)
    torch.testing.assert_close(LOG(taken(values, sparse), sparse), (0.5 * values[kept].softmax(-1)).log())


def test_one_expert_twice_for_a_row_adds_up():
    two = Selection(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([0.25, 0.5]), torch.tensor([True, True]))
    routing = Routing.from_selection(torch.zeros(1, 2), torch.zeros(1, 2), two)
    values = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    torch.testing.assert_close(LOG(values, routing).exp(), 0.75 * values[:1].softmax(-1))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_have_finite_losses_and_gradients(sparse, size):
    values = torch.tensor([[[size, 0.0, 0.0], [0.0, 0.0, size]]], requires_grad=True)
    scores = torch.tensor([[0.0, 50.0]], requires_grad=True)
    routing = mb.routers.Soft()(scores)
    if sparse:
        routing = selected(routing.weights)
    y = LOG(taken(values, routing) if sparse else values, routing)
    for target in range(3):
        loss = F.nll_loss(y, torch.tensor([target]))
        gradients = torch.autograd.grad(loss, (values, scores), retain_graph=True)
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_target_that_all_experts_call_impossible_still_has_a_gradient():
    values = torch.tensor([[[1e4, 0.0], [1e4, 0.0]]], requires_grad=True)
    loss = F.nll_loss(LOG(values, mb.routers.Soft()(torch.zeros(1, 2))), torch.tensor([1]))
    loss.backward()
    assert loss.item() == 1e4
    # Each expert's share is exp of a difference of numbers around 1e4, which single precision knows to 1e-3.
    torch.testing.assert_close(values.grad, torch.tensor([[[0.5, -0.5], [0.5, -0.5]]]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sparse", [False, True])
def test_weights_of_zero_take_the_expert_out(sparse):
    scores = torch.tensor([[-torch.inf, 0.0], [0.0, -torch.inf]], dtype=torch.float64)
    values = torch.randn(2, 2, 3).double().requires_grad_()
    routing = mb.routers.Soft()(scores)
    routing = selected(routing.weights) if sparse else routing
    y = LOG(taken(values, routing) if sparse else values, routing)
    torch.testing.assert_close(y, torch.stack([values[0, 1], values[1, 0]]).log_softmax(-1))
    y.exp().square().sum().backward()
    assert values.grad.isfinite().all()
    assert values.grad[0, 0].count_nonzero() == values.grad[1, 1].count_nonzero() == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_a_weight_that_underflowed_has_a_gradient_of_zero(sparse):
    scores = torch.tensor([[0.0, -200.0]], requires_grad=True)
    routing = mb.routers.Soft()(scores)
    routing = selected(routing.weights) if sparse else routing
    values = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    LOG(taken(values, routing) if sparse else values, routing)[0, 0].backward()
    torch.testing.assert_close(scores.grad, torch.zeros(1, 2))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_class_that_all_experts_rule_out_has_no_probability_and_no_gradient(sparse):
    values = torch.tensor([[[0.0, 1.0, -torch.inf], [2.0, 0.0, -torch.inf]]], dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([[0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    routing = mb.routers.Soft()(scores)
    routing = selected(routing.weights) if sparse else routing
    y = LOG(taken(values, routing) if sparse else values, routing)
    assert y[0, 2] == -torch.inf
    F.nll_loss(y, torch.tensor([0])).backward()
    without = values.detach()[..., :2].requires_grad_()
    F.nll_loss(LOG(without, mb.routers.Soft()(scores.detach())), torch.tensor([0])).backward()
    torch.testing.assert_close(values.grad[..., :2], without.grad)
    assert values.grad[..., 2].count_nonzero() == 0
    assert scores.grad.isfinite().all()


def test_a_row_that_nobody_kept():
    kept = torch.tensor([[True, True], [False, False]])
    weights = torch.full((2, 2), 0.5, requires_grad=True)
    routing, values = selected(weights, kept), torch.randn(2, 2, 3, requires_grad=True)
    y = LOG(taken(values, routing), routing)
    assert y[0].isfinite().all()
    assert (y[1] == -torch.inf).all()
    y[0].sum().backward()
    assert weights.grad.isfinite().all()
    assert values.grad.isfinite().all()
    assert values.grad[1].count_nonzero() == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_are_those_of_finite_differences(sparse):
    torch.manual_seed(0)
    scores, values = torch.randn(3, 2).double().requires_grad_(), torch.randn(3, 2, 4).double().requires_grad_()

    def mixed(scores, values):
        routing = mb.routers.Soft()(scores)
        routing = selected(routing.weights) if sparse else routing
        return LOG(taken(values, routing) if sparse else values, routing)

    assert torch.autograd.gradcheck(mixed, (scores, values))
    assert torch.autograd.gradgradcheck(mixed, (scores, values))


@pytest.mark.parametrize(("heads", "classes"), [(2, 1), (1, 4), (2, 4)])
def test_heads_add_up_and_classes_have_their_own_weights(heads, classes):
    torch.manual_seed(0)
    values, full = torch.randn(5, 3, 4).double(), torch.rand(5, heads, 3, classes).double()
    direct = (full.sum(1) * values.softmax(-1)).sum(1).log()
    weights = full.sum(1).mean(-1)
    dense = Routing(weights, weights, weights, weights.log(), head_weights=full)
    sparse = replace(selected(weights), head_weights=full)
    torch.testing.assert_close(LOG(values, dense), direct)
    torch.testing.assert_close(LOG(taken(values, sparse), sparse), direct)


def one_hot(weights):
    """The routing of a straight-through router: one-hot in value, with a gradient for every expert."""
    log_weights = torch.where(weights.detach() > 0, 0.0, -torch.inf).to(weights.dtype)
    return Routing(weights, weights, weights, log_weights, straight_through=True)


def test_straight_through_weights_of_zero_have_the_gradient_of_their_expert():
    torch.manual_seed(0)
    values = torch.randn(3, 4, 5).double().requires_grad_()
    weights = torch.eye(4, dtype=torch.float64)[[2, 0, 2]].requires_grad_()
    target, chosen = torch.tensor([1, 4, 0]), torch.tensor([2, 0, 2])
    y = LOG(values, one_hot(weights))
    probs = values.detach().softmax(-1)
    assert torch.equal(y, values.log_softmax(-1)[range(3), chosen])
    y[range(3), target].sum().backward()
    target_probs = probs[range(3), :, target]
    torch.testing.assert_close(weights.grad, target_probs / target_probs[range(3), chosen].unsqueeze(1))
    # Only the chosen expert learns: the others had no part in the value.
    assert values.grad.abs().sum(-1).ne(0).nonzero().tolist() == [[0, 2], [1, 0], [2, 2]]


def test_straight_through_is_the_mixture_of_probabilities_for_any_weights():
    torch.manual_seed(0)
    values, scores = torch.randn(6, 3, 4).double(), torch.randn(6, 3).double()
    dense = mb.routers.Soft()(scores)
    torch.testing.assert_close(LOG(values, replace(dense, straight_through=True)), LOG(values, dense))
    full = torch.rand(6, 2, 3, 1).double()
    heads = replace(dense, head_weights=full, weights=full.sum(1).squeeze(-1))
    torch.testing.assert_close(LOG(values, replace(heads, straight_through=True)), LOG(values, heads))


def test_straight_through_gradients_stay_finite_where_another_expert_is_far_better():
    values = torch.tensor([[[0.0, 1e4], [1e4, 0.0], [-torch.inf, 0.0]]], requires_grad=True)
    weights = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    y = LOG(values, one_hot(weights))
    assert y.tolist() == [[-1e4, 0.0]]
    y[0, 0].backward()
    # p_e / p_chosen is e¹⁰⁰⁰⁰ for the second and 0 for the third.
    torch.testing.assert_close(weights.grad, torch.tensor([[1.0, torch.tensor(30.0).exp(), 0.0]]))
    assert values.grad.isfinite().all()


def test_straight_through_without_rows_or_where_the_chosen_rules_a_class_out():
    assert LOG(torch.zeros(0, 2, 3), one_hot(torch.zeros(0, 2))).shape == (0, 3)
    values = torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]], requires_grad=True)
    weights = torch.tensor([[1.0, 0.0]], requires_grad=True)
    y = LOG(values, one_hot(weights))
    assert y.tolist() == [[0.0, -torch.inf]]
    y[0, 0].backward()
    assert weights.grad.tolist() == [[1.0, 0.5]]
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("sparse", [False, True])
def test_renormalised_it_is_a_distribution_whatever_the_weights_sum_to(sparse):
    torch.manual_seed(0)
    values = torch.randn(5, 3, 4).double()
    weights = torch.rand(5, 3).double() * torch.tensor([0.1, 1.0, 3.0, 10.0, 1e-3]).double().unsqueeze(1)
    routing = selected(weights) if sparse else Routing(weights, weights, weights, weights.log())
    y = mb.LogMixture(renormalise=True)(taken(values, routing) if sparse else values, routing)
    mixture = (weights.unsqueeze(-1) * values.softmax(-1)).sum(1)
    torch.testing.assert_close(y.exp(), mixture / mixture.sum(-1, keepdim=True))


def test_renormalised_weights_per_class():
    torch.manual_seed(0)
    values = torch.randn(5, 3, 4).double()
    routing = mb.routers.PerClass(4)(torch.randn(5, 12).double())
    mixture = (routing.head_weights[:, 0] * values.softmax(-1)).sum(1)
    y = mb.LogMixture(renormalise=True)(values, routing)
    torch.testing.assert_close(y, (mixture / mixture.sum(-1, keepdim=True)).log())


def test_renormalising_a_distribution_changes_nothing():
    torch.manual_seed(0)
    values, routing = torch.randn(5, 3, 4).double(), mb.routers.Soft()(torch.randn(5, 3).double())
    torch.testing.assert_close(mb.LogMixture(renormalise=True)(values, routing), LOG(values, routing))


def test_renormalised_rows_and_classes_without_a_probability_stay_so():
    kept = torch.tensor([[True, True], [False, False]])
    weights = torch.full((2, 2), 0.2, requires_grad=True)
    values = torch.tensor([[[0.0, 1.0, -torch.inf]] * 2] * 2, requires_grad=True)
    routing = selected(weights, kept)
    y = mb.LogMixture(renormalise=True)(taken(values, routing), routing)
    torch.testing.assert_close(y[0, :2].exp(), torch.tensor([0.0, 1.0]).softmax(-1))
    assert (y[1] == -torch.inf).all()
    assert y[0, 2] == -torch.inf
    (y[0, 0] + y[1, 0]).backward()
    assert weights.grad.isfinite().all()
    assert values.grad.isfinite().all()


def test_renormalised_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    scores, values = torch.rand(3, 2).double().requires_grad_(), torch.randn(3, 2, 4).double().requires_grad_()

    def mixed(scores, values):
        return mb.LogMixture(renormalise=True)(values, mb.routers.Soft(normalisation="sigmoid")(scores))

    assert torch.autograd.gradcheck(mixed, (scores, values))
