"""The loop runs each expert on only its rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import moebius as mb
from moebius.core.routing import Routing, Selection
from moebius.execution.loop import Loop
from moebius.kit.errors import ArgumentError

loop = Loop()


class Counting(nn.Module):
    """A linear expert that records the numbers of rows of its calls."""

    def __init__(self, features=4, outputs=3):
        super().__init__()
        self.linear, self.rows = nn.Linear(features, outputs), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.linear(x)


def selecting(rows, row_A, expert_A, weight_A=None, kept_A=None, experts=3):
    scores = torch.zeros(rows, experts, dtype=torch.float64)
    count = len(row_A)
    weight_A = torch.ones(count, dtype=torch.float64) if weight_A is None else torch.as_tensor(weight_A).double()
    kept_A = torch.ones(count, dtype=torch.bool) if kept_A is None else torch.tensor(kept_A, dtype=torch.bool)
    row_A, expert_A = torch.tensor(row_A, dtype=torch.long), torch.tensor(expert_A, dtype=torch.long)
    return Routing.from_selection(scores, scores.softmax(-1), Selection(row_A, expert_A, weight_A, kept_A))


def counting_experts(experts=3):
    torch.manual_seed(0)
    return [Counting().double() for _ in range(experts)]


X = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)


def test_an_expert_sees_just_its_rows_in_any_order_of_assignments():
    experts = counting_experts()
    values = loop(experts, selecting(5, [4, 0, 2, 1, 3], [1, 0, 1, 0, 1]), X)
    assert [expert.rows for expert in experts] == [[2], [3], []]
    for place, (row, expert) in enumerate(zip([4, 0, 2, 1, 3], [1, 0, 1, 0, 1], strict=True)):
        torch.testing.assert_close(values[place], experts[expert].linear(X[row]))


def test_what_was_dropped_is_not_run_and_gives_zero():
    experts = counting_experts()
    kept = [True, False, True, False, False]
    values = loop(experts, selecting(5, [0, 1, 2, 3, 4], [0, 0, 1, 1, 2], kept_A=kept), X)
    assert [expert.rows for expert in experts] == [[1], [1], []]
    assert values[[1, 3, 4]].count_nonzero() == 0
    assert values[[0, 2]].count_nonzero() == 6


def test_experts_without_rows_have_gradients_of_zero():
    experts = counting_experts()
    loop(experts, selecting(5, [0, 1, 2, 3, 4], [1] * 5), X).sum().backward()
    assert [expert.rows for expert in experts] == [[], [5], []]
    for expert in (experts[0], experts[2]):
        assert all(parameter.grad.count_nonzero() == 0 for parameter in expert.parameters())
    assert experts[1].linear.weight.grad.count_nonzero() > 0


def test_idle_experts_get_zero_gradients_even_where_the_chosen_ones_are_frozen():
    experts = counting_experts(2)
    experts[0].requires_grad_(False)
    loop(experts, selecting(5, [0, 1], [0, 0], experts=2), X).sum().backward()
    assert experts[0].linear.weight.grad is None
    assert experts[1].linear.weight.grad.count_nonzero() == 0


def test_frozen_idle_experts_get_none():
    experts = counting_experts(2)
    experts[1].requires_grad_(False)
    loop(experts, selecting(5, [0, 1], [0, 0], experts=2), X).sum().backward()
    assert all(parameter.grad is None for parameter in experts[1].parameters())


def test_where_nothing_is_kept_outputs_and_gradients_are_zero():
    experts = counting_experts()
    values = loop(experts, selecting(5, [0, 1], [0, 2], kept_A=[False, False]), X)
    assert values.shape == (2, 3)
    assert values.count_nonzero() == 0
    values.sum().backward()
    assert all(p.grad is not None and p.grad.count_nonzero() == 0 for expert in experts for p in expert.parameters())
    assert sum(sum(expert.rows) for expert in experts) == 0


def test_no_rows():
    experts = counting_experts()
    assert loop(experts, selecting(0, [], []), X[:0]).shape == (0, 3)
    assert loop(experts, mb.routers.Soft()(torch.zeros(0, 3)), X[:0]).shape == (0, 3, 3)


def test_where_nothing_is_kept_a_domain_gate_inside_is_asked_about_no_row():
    inner = mb.Mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), nn.Linear(4, 3)]).double()
    with mb.context(domain=torch.tensor([0, 1, 0, 1, 1])):
        values = loop([inner], selecting(5, [0, 1], [0, 0], kept_A=[False, False], experts=1), X)
    assert values.shape == (2, 3)


def test_two_experts_per_row_are_the_dense_computation():
    experts = counting_experts()
    rows, numbers = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4], [0, 1, 2, 0, 1, 1, 2, 0, 2, 0]
    weight_A = torch.rand(10, dtype=torch.float64)
    routing = selecting(5, rows, numbers, weight_A)
    sparse = mb.WeightedSum()(loop(experts, routing, X), routing)
    by_hand = torch.stack([expert.linear(X) for expert in experts], 1)
    torch.testing.assert_close(sparse, (routing.weights.unsqueeze(-1) * by_hand).sum(1))
    assert sum(sum(expert.rows) for expert in experts) == 10


@given(st.data())
def test_any_selection_is_the_dense_computation(data):
    rows, count = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    pairs = data.draw(st.permutations([(t, e) for t in range(rows) for e in range(count)]))
    pairs = pairs[: data.draw(st.integers(0, len(pairs)))]
    kept = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    torch.manual_seed(len(pairs))
    weight_A = torch.rand(len(pairs), dtype=torch.float64, requires_grad=True)
    routing = selecting(rows, [t for t, _ in pairs], [e for _, e in pairs], weight_A, kept, count)
    experts, x = counting_experts(count), X[:1].expand(rows, 4) * torch.randn(rows, 1, dtype=torch.float64)
    x = x.detach().requires_grad_()
    inputs = [x, *(parameter for expert in experts for parameter in expert.parameters())]
    sparse = mb.WeightedSum()(loop(experts, routing, x), routing)
    dense = torch.einsum("te,tec->tc", routing.weights, torch.stack([expert.linear(x) for expert in experts], 1))
    torch.testing.assert_close(sparse, dense)
    upstream = torch.randn_like(dense)
    gradients = [torch.autograd.grad(y, inputs, upstream, retain_graph=True) for y in (sparse, dense)]
    torch.testing.assert_close(*gradients)


def test_unlike_experts_with_image_outputs():
    x = torch.randn(4, 1, 6, 6)
    experts = [
        nn.Conv2d(1, 2, 3, padding=1),
        nn.Sequential(nn.Flatten(), nn.Linear(36, 72), nn.Unflatten(1, (2, 6, 6))),
    ]
    routing = mb.routers.Argmax()(torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
    y = mb.WeightedSum()(loop(experts, routing, x), routing)
    assert y.shape == (4, 2, 6, 6)
    torch.testing.assert_close(y[1], experts[0](x[1:2])[0])
    torch.testing.assert_close(y[[0, 2, 3]], experts[1](x[[0, 2, 3]]))


def test_batch_norm_on_a_single_row_names_the_expert():
    experts = [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))]
    routing = selecting(5, [0, 1, 2], [0, 0, 1], experts=2)
    with pytest.raises(ArgumentError, match=r"experts\.1: batch normalisation needs more than one row") as caught:
        loop(experts, routing, X.float())
    assert "GroupNorm" in caught.value.fix


def test_other_errors_of_experts_pass_through():
    class Broken(nn.Module):
        def forward(self, x):
            raise ValueError("of its own")

    with pytest.raises(ValueError, match=r"^of its own$"):
        loop([Broken()], selecting(5, [0], [0], experts=1), X)
