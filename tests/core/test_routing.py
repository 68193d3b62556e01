"""`Routing`: weights from a selection, and a pytree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import moebius as mb
from moebius.core.routing import Router, Routing, Selection


def make_routing(rows, experts, pairs, weights, kept):
    scores = torch.zeros(rows, experts, dtype=torch.float64)
    row_A = torch.tensor([row for row, _ in pairs], dtype=torch.long)
    expert_A = torch.tensor([expert for _, expert in pairs], dtype=torch.long)
    selection = Selection(row_A, expert_A, torch.as_tensor(weights).double(), torch.tensor(kept, dtype=torch.bool))
    return Routing.from_selection(scores, scores.softmax(-1), selection, {"load": torch.ones(experts)})


def test_worked_literal():
    routing = make_routing(2, 3, [(0, 2), (1, 0), (0, 1), (0, 2)], [0.5, 0.25, 1.0, 0.25], [True, True, False, True])
    assert routing.weights.tolist() == [[0.0, 0.0, 0.75], [0.25, 0.0, 0.0]]
    torch.testing.assert_close(routing.log_weights.exp(), routing.weights)
    assert routing.experts == 3
    assert routing.aux["load"].tolist() == [1.0, 1.0, 1.0]


@given(st.data())
def test_weights_are_the_sums_of_the_kept_assignments(data):
    rows, experts = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    assignments = st.tuples(st.integers(0, rows - 1), st.integers(0, experts - 1))
    pairs = data.draw(st.lists(assignments, max_size=12))
    weights = data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(pairs), max_size=len(pairs)))
    kept = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    routing = make_routing(rows, experts, pairs, weights, kept)
    by_hand = torch.zeros(rows, experts, dtype=torch.float64)
    for pair, weight, is_kept in zip(pairs, weights, kept, strict=True):
        by_hand[pair] += weight * is_kept
    torch.testing.assert_close(routing.weights, by_hand)
    torch.testing.assert_close(routing.log_weights, by_hand.log())


def test_gradients_are_finite_where_nothing_was_chosen():
    weight_A = torch.tensor([0.5, 0.5], requires_grad=True)
    selection = Selection(torch.tensor([0, 1]), torch.tensor([0, 1]), weight_A, torch.tensor([True, False]))
    routing = Routing.from_selection(torch.zeros(2, 2), torch.zeros(2, 2), selection)
    routing.log_weights[routing.weights > 0].sum().backward()
    assert weight_A.grad.tolist() == [2.0, 0.0]


def test_with_rows_sets_the_rows_and_leaves_the_rest():
    routing = mb.routers.Argmax()(torch.eye(3))
    numbered = routing.with_rows(torch.tensor([5, 1, 7]))
    assert numbered.rows.tolist() == [5, 1, 7]
    assert routing.rows is None
    assert numbered.weights is routing.weights
    assert numbered.selection is routing.selection


ROUTINGS = {
    "dense": mb.routers.Soft()(torch.eye(3)),
    "selected": mb.routers.Argmax()(torch.eye(3)).with_rows(torch.tensor([2, 0, 4])),
    "with aux": make_routing(2, 3, [(0, 1)], [0.5], [True]),
    "with heads": Routing(*[torch.eye(3)] * 4, head_weights=torch.ones(3, 2, 3, 4)),
}


@pytest.mark.parametrize("name", ROUTINGS)
def test_it_is_a_pytree(name):
    routing = ROUTINGS[name]
    leaves, spec = pytree.tree_flatten(routing)
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    rebuilt = pytree.tree_unflatten(leaves, spec)
    assert pytree.tree_structure(rebuilt) == spec
    for field in ("scores", "probs", "weights", "log_weights", "rows", "head_weights"):
        assert getattr(rebuilt, field) is getattr(routing, field)
    assert (rebuilt.selection is None) == (routing.selection is None)
    assert rebuilt.aux == routing.aux


@pytest.mark.parametrize("name", ROUTINGS)
def test_tree_map_reaches_every_tensor(name):
    copied = pytree.tree_map(torch.clone, ROUTINGS[name])
    copies, originals = pytree.tree_leaves(copied), pytree.tree_leaves(ROUTINGS[name])
    assert len(copies) == len(originals)
    for copy, original in zip(copies, originals, strict=True):
        assert copy is not original
        assert torch.equal(copy, original)


def test_a_log_is_a_pytree_too():
    moe = mb.Mixture(mb.gates.Linear(4, 2), [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)])
    _, log = mb.call(moe, torch.zeros(5, 4))
    detached = pytree.tree_map(torch.Tensor.detach, log)
    assert log[""][0].weights.requires_grad
    assert not detached[""][0].weights.requires_grad


def test_frozen():
    with pytest.raises(AttributeError):
        ROUTINGS["dense"].rows = torch.arange(3)


def test_a_router_without_a_forward_says_so():
    class Unfinished(Router):
        pass

    with pytest.raises(TypeError, match="Unfinished is a router without a forward"):
        Unfinished()(torch.zeros(2, 2))
    assert Unfinished().max_active(7) == 7


def test_a_routing_prints_in_a_line_and_as_a_table():
    torch.manual_seed(0)
    routing = mb.routers.TopK(2)(torch.randn(1000, 16))
    assert repr(routing) == "Routing(rows=1000, experts=16, assignments=2000, aux=['assigned'])"
    assert repr(routing.selection) == "Selection(assignments=2000)"
    table = routing._repr_html_()
    assert table.count("<tr>") == 17
    assert "Routing of 1000 rows" in table
    heads = mb.routers.Heads(mb.routers.Soft(), 2)(torch.randn(3, 4))
    assert repr(heads) == "Routing(rows=3, experts=2, head_weights=(3, 2, 2, 1))"
