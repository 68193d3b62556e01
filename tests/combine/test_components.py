"""(log w_e, y_e) for each expert of a row."""

from dataclasses import replace

import pytest
import torch

import moebius as mb
from moebius.combine.components import Components
from moebius.core.routing import Routing, Selection
from moebius.kit.errors import ArgumentError
from moebius.tasks import Gaussian


def readable(values_TEC, routing, renormalise=False):
    """The same by a loop over rows and experts."""
    rows = []
    for t, outputs in enumerate(values_TEC):
        total = routing.weights[t].sum() if renormalise else 1
        chosen = routing.weights[t] > 0
        rows.append(
            torch.stack(
                [
                    torch.cat([(routing.weights[t, e] / total).log()[None], outputs[e]])
                    if chosen[e]
                    else torch.cat([torch.tensor([-torch.inf]).to(outputs), torch.zeros_like(outputs[e])])
                    for e in range(len(outputs))
                ]
            )
        )
    return torch.stack(rows)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(
    "router",
    [mb.routers.Soft(), mb.routers.TopK(2), mb.routers.TopK(1), mb.routers.Sparsemax(), mb.routers.ReLU()],
    ids=lambda router: type(router).__name__,
)
def test_it_agrees_with_a_loop_in_outputs_and_gradients(router, renormalise):
    torch.manual_seed(0)
    # The first expert's score is above 0, so that no row is without experts.
    scores = torch.randn(7, 3).double().add(torch.tensor([3.0, 0.0, 0.0])).requires_grad_()
    outputs = torch.randn(7, 3, 4).double().requires_grad_()
    target = torch.randn(7, 2).double()
    results = []
    for combine in (Components(renormalise), readable):
        routing = router(scores)
        if combine is readable:
            y = readable(outputs, routing, renormalise)
        else:
            selection = routing.selection
            y = combine(outputs if selection is None else selection.select_outputs(outputs), routing)
        loss = Gaussian().row_losses(y, target).mean()
        results.append((y, *torch.autograd.grad(loss, (scores, outputs), allow_unused=True, materialize_grads=True)))
    torch.testing.assert_close(*results)
    assert all(part.isfinite().all() for part in results[0][1:])


def test_an_expert_that_was_not_chosen_has_no_weight_and_no_gradient_in_a_mixture():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(3, 4), [mb.experts.Linear(3, 2) for _ in range(4)], mb.routers.TopK(2))
    moe.combine = Components()
    x = torch.randn(16, 3)
    y = moe(x)
    assert y.shape == (16, 4, 3)
    assert (y[..., 0] == -torch.inf).sum(1).tolist() == [2] * 16
    torch.testing.assert_close(y[..., 0].exp().sum(1), torch.ones(16))
    Gaussian().row_losses(y, torch.randn(16)).mean().backward()
    gradients = [parameter.grad for parameter in moe.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert moe.gate.linear.weight.grad.any()


def test_a_row_without_experts_has_an_infinite_loss_and_gradients_of_zero():
    weights = torch.tensor([[0.5, 0.5], [0.0, 0.0]], requires_grad=True)
    kept = torch.tensor([True, True, False, False])
    rows, experts = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    routing = Routing.from_selection(weights, weights, Selection(rows, experts, weights.flatten(), kept))
    values = torch.randn(4, 2, requires_grad=True)
    for renormalise in (False, True):
        losses = Gaussian().row_losses(Components(renormalise)(values, routing), torch.zeros(2))
        assert losses[0].isfinite()
        assert losses[1] == torch.inf
        gradients = torch.autograd.grad(losses.sum(), (weights, values), retain_graph=True)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert gradients[1][2:].count_nonzero() == 0


def test_a_pair_that_is_selected_twice_has_both_weights_and_its_outputs_once():
    twice = Selection(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([0.25, 0.5]), torch.tensor([True, True]))
    routing = Routing.from_selection(torch.zeros(1, 2), torch.zeros(1, 2), twice)
    y = Components()(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), routing)
    assert y[0, 0].tolist() == [-torch.inf, 0.0, 0.0]
    torch.testing.assert_close(y[0, 1], torch.cat([torch.tensor([0.75]).log(), torch.tensor([1.0, 2.0])]))


def test_a_tree_is_the_mixture_of_its_leaves():
    torch.manual_seed(0)
    leaves = [[mb.experts.Linear(3, 2) for _ in range(2)] for _ in range(3)]
    branches = [mb.Mixture(mb.gates.Linear(3, 2), pair, combine=Components()) for pair in leaves]
    tree = mb.Mixture(mb.gates.Linear(3, 3), branches, combine=Components()).double()
    x, y = torch.randn(9, 3).double(), torch.randn(9).double()
    density = 0
    for branch, weight in zip(branches, tree.gate(x).softmax(-1).unbind(1), strict=True):
        for leaf, inner in zip(branch.experts, branch.gate(x).softmax(-1).unbind(1), strict=True):
            density = density + weight * inner * Gaussian().row_losses(leaf(x), y).neg().exp()
    output = tree(x)
    assert output.shape == (9, 6, 3)
    torch.testing.assert_close(Gaussian().row_losses(output, y), -density.log())
    tree.router = mb.routers.TopK(1)
    assert (tree(x)[..., 0] > -torch.inf).sum(1).tolist() == [2] * 9


def test_half_precision_is_computed_in_single():
    values, routing = torch.randn(4, 2, 2).bfloat16(), mb.routers.Soft()(torch.randn(4, 2).bfloat16())
    assert Components()(values, routing).dtype == torch.float32


def test_heads_add_up():
    torch.manual_seed(0)
    router = mb.routers.Heads(mb.routers.Soft(), heads=2)
    routing, values = router(torch.randn(5, 6)), torch.randn(5, 3, 2)
    y = Components()(values, routing)
    torch.testing.assert_close(y[..., 0].exp(), routing.head_weights.sum(1).squeeze(-1))
    torch.testing.assert_close(Components(renormalise=True)(values, routing)[..., 0].exp().sum(1), torch.ones(5))


def test_a_straight_through_router_trains_no_logarithm_and_is_refused_with_one_that_does():
    scores, values = torch.randn(5, 2), torch.randn(5, 2, 2)
    with pytest.raises(ArgumentError, match="GumbelSoftmax"):
        Components()(values, mb.routers.Gumbel()(scores))
    routing = mb.routers.Gumbel().eval()(scores)
    y = Components()(routing.selection.select_outputs(values), routing)
    assert (y[..., 0] == 0).sum(1).tolist() == [1] * 5


def test_weights_per_class_and_outputs_without_a_row_of_numbers_are_refused():
    with pytest.raises(ArgumentError, match="one for each class"):
        Components()(torch.randn(5, 3, 4), mb.routers.PerClass(4)(torch.randn(5, 12)))
    with pytest.raises(ArgumentError, match="a mean and a scale"):
        Components()(torch.randn(5, 3), mb.routers.Soft()(torch.randn(5, 3)))


def test_padding_is_zero():
    moe = mb.Mixture(mb.gates.Linear(3, 2), [mb.experts.Linear(3, 2) for _ in range(2)], combine=Components())
    y = moe(torch.randn(4, 3), mask=torch.tensor([True, False, True, True]))
    assert y.shape == (4, 2, 3)
    assert y[1].count_nonzero() == 0


def test_under_a_transform_of_torch_it_gives_the_same():
    torch.manual_seed(0)
    scores, values = torch.randn(2, 5, 3), torch.randn(2, 5, 3, 2)

    def mix(scores, values):
        return Gaussian().row_losses(Components()(values, mb.routers.Soft()(scores)), torch.zeros(5))

    expected = torch.stack([mix(*pair) for pair in zip(scores, values, strict=True)])
    torch.testing.assert_close(torch.func.vmap(mix)(scores, values), expected)


def test_the_routing_does_not_change_for_the_combine():
    routing = mb.routers.Soft()(torch.randn(5, 3))
    same = replace(routing)
    Components(renormalise=True)(torch.randn(5, 3, 2), routing)
    assert routing.log_weights is same.log_weights
