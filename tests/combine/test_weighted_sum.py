"""Σ_e w_e · y_e."""

from dataclasses import replace

import pytest
import torch

import moebius as mb
from moebius.core.routing import Routing, Selection
from moebius.kit.errors import ArgumentError

SUM = mb.WeightedSum()


def weighing(weights, selection=None, **fields):
    weights = torch.as_tensor(weights, dtype=torch.float64)
    return Routing(weights, weights, weights, weights.log(), selection, **fields)


def everything(weights, shuffled=True):
    """The selection that keeps all pairs of row and expert, in another order."""
    rows, experts = weights.shape
    order = torch.randperm(rows * experts) if shuffled else torch.arange(rows * experts)
    row_A, expert_A = order // experts, order % experts
    return Selection(row_A, expert_A, weights[row_A, expert_A], torch.ones_like(row_A, dtype=torch.bool))


def test_worked_literal():
    values = torch.tensor([[[2.0, 0.0], [4.0, 2.0]], [[1.0, 1.0], [0.0, -4.0]]], dtype=torch.float64)
    y = SUM(values, weighing([[0.25, 0.75], [1.0, 0.5]]))
    assert y.tolist() == [[3.5, 1.5], [1.0, -1.0]]


def test_sparse_worked_literal():
    routing = Routing.from_selection(
        torch.zeros(3, 2),
        torch.zeros(3, 2),
        Selection(
            torch.tensor([1, 0, 1, 2]),
            torch.tensor([0, 1, 1, 0]),
            torch.tensor([0.5, 1.0, 0.25, 1.0]),
            torch.tensor([True, True, True, False]),
        ),
    )
    y = SUM(torch.tensor([[2.0], [3.0], [4.0], [9.0]]), routing)
    assert y.tolist() == [[3.0], [2.0], [0.0]]  # the last row was kept by none


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 3)])
def test_sparse_is_dense(shape):
    torch.manual_seed(0)
    values = torch.randn(5, 3, *shape, dtype=torch.float64)
    dense = weighing(torch.rand(5, 3))
    sparse = replace(dense, selection=everything(dense.weights))
    chosen = values[sparse.selection.row_A, sparse.selection.expert_A]
    torch.testing.assert_close(SUM(chosen, sparse), SUM(values, dense))


@pytest.mark.parametrize(("heads", "classes"), [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_heads_add_up_and_classes_have_their_own_weights(heads, classes):
    torch.manual_seed(0)
    values, full = torch.randn(5, 3, 4, dtype=torch.float64), torch.rand(5, heads, 3, classes, dtype=torch.float64)
    by_hand = torch.zeros(5, 4, dtype=torch.float64)
    for row in range(5):
        for head in range(heads):
            for expert in range(3):
                by_hand[row] += full[row, head, expert] * values[row, expert]
    dense = weighing(full.sum(1).mean(-1), head_weights=full)
    sparse = replace(dense, selection=everything(dense.weights))
    chosen = values[sparse.selection.row_A, sparse.selection.expert_A]
    torch.testing.assert_close(SUM(values, dense), by_hand)
    torch.testing.assert_close(SUM(chosen, sparse), by_hand)


@pytest.mark.parametrize("shape", [(), (2,), (3, 3), (3, 5, 5)])
def test_heads_without_weights_per_class_are_the_sum_of_mixtures(shape):
    torch.manual_seed(0)
    # As many rows, experts and channels: a wrong broadcast would not be an error.
    values, full = torch.randn(3, 3, *shape, dtype=torch.float64), torch.rand(3, 2, 3, 1, dtype=torch.float64)
    dense = weighing(full.sum(1).mean(-1), head_weights=full)
    heads = [SUM(values, weighing(full[:, head, :, 0])) for head in range(2)]
    torch.testing.assert_close(SUM(values, dense), heads[0] + heads[1])
    sparse = replace(dense, selection=everything(dense.weights))
    torch.testing.assert_close(
        SUM(values[sparse.selection.row_A, sparse.selection.expert_A], sparse), heads[0] + heads[1]
    )


def test_dropped_assignments_of_heads_do_not_count():
    full = torch.ones(1, 2, 2, 3, dtype=torch.float64)
    selection = Selection(
        torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2.0, 2.0]), torch.tensor([True, False])
    )
    y = SUM(torch.ones(2, 3, dtype=torch.float64), weighing([[2.0, 0.0]], selection, head_weights=full))
    assert y.tolist() == [[2.0, 2.0, 2.0]]


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    weights, values = torch.rand(4, 3, dtype=torch.float64), torch.randn(4, 3, 2, dtype=torch.float64)

    def dense(weights, values):
        return SUM(values, Routing(weights, weights, weights, weights.log()))

    def sparse(weights, values):
        selection = everything(weights, shuffled=False)
        routing = Routing.from_selection(weights, weights, selection)
        return SUM(values[selection.row_A, selection.expert_A], routing)

    inputs = (weights.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(dense, inputs)
    assert torch.autograd.gradcheck(sparse, inputs)


SOFTMAX = mb.WeightedSum(activation="softmax")


def test_softmax_worked_literal():
    # softmax(0, ln 3) = (1/4, 3/4) and softmax(0, 0) = (1/2, 1/2); an elu gate's weights 2 and −1/2.
    values = torch.tensor([[[1.0, 3.0], [1.0, 1.0]]], dtype=torch.float64).log()
    torch.testing.assert_close(SOFTMAX(values, weighing([[2.0, -0.5]])), torch.tensor([[0.25, 1.25]]).double())


@pytest.mark.parametrize(("heads", "classes"), [(None, 1), (2, 1), (1, 4), (2, 4)])
def test_softmax_is_the_sum_of_the_softmaxed(heads, classes):
    torch.manual_seed(0)
    values, weights = torch.randn(5, 3, 4, dtype=torch.float64), torch.rand(5, 3, dtype=torch.float64)
    dense = weighing(weights)
    if heads:
        full = torch.rand(5, heads, 3, classes, dtype=torch.float64)
        dense = weighing(full.sum(1).mean(-1), head_weights=full)
    sparse = replace(dense, selection=everything(dense.weights))
    chosen = values[sparse.selection.row_A, sparse.selection.expert_A]
    expected = SUM(values.softmax(-1), dense)
    torch.testing.assert_close(SOFTMAX(values, dense), expected)
    torch.testing.assert_close(SOFTMAX(chosen, sparse), expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_softmax_of_classes_that_an_expert_does_not_know(sparse):
    values = torch.tensor([[[0.0, 0.0, -torch.inf], [-torch.inf, 0.0, -torch.inf]]], requires_grad=True)
    scores = torch.zeros(1, 2, requires_grad=True)
    routing, inputs = mb.routers.Soft()(scores), values
    if sparse:
        routing = Routing.from_selection(scores, routing.probs, everything(routing.weights, shuffled=False))
        inputs = values[routing.selection.row_A, routing.selection.expert_A]
    y = SOFTMAX(inputs, routing)
    torch.testing.assert_close(y, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.nn.functional.cross_entropy(y, torch.tensor([2])).backward()
    assert values.grad.isfinite().all()
    assert scores.grad.isfinite().all()
    assert values.grad[values.isinf()].count_nonzero() == 0


def test_softmax_is_single_precision_at_least_under_autocast_too():
    torch.manual_seed(0)
    values, routing = torch.randn(4, 3, 5), mb.routers.Soft()(torch.randn(4, 3))
    with torch.autocast("cpu", torch.bfloat16):
        y = SOFTMAX(values.bfloat16(), routing)
    torch.testing.assert_close(y, SOFTMAX(values.bfloat16().float(), routing), rtol=1e-6, atol=0)
    assert SOFTMAX(values.double(), routing).dtype == torch.float64


@pytest.mark.parametrize("sparse", [False, True])
def test_softmax_of_single_numbers_is_refused(sparse):
    routing = weighing([[0.5, 0.5]])
    routing = replace(routing, selection=everything(routing.weights)) if sparse else routing
    with pytest.raises(ArgumentError, match=r"^activation: softmax needs outputs with an axis of classes"):
        SOFTMAX(torch.zeros(2 if sparse else (1, 2), dtype=torch.float64), routing)


@pytest.mark.parametrize("combine", [mb.WeightedSum, mb.combine.HeadMean, mb.combine.HeadMaximum])
def test_an_unknown_activation_is_refused_and_a_known_one_kept(combine):
    with pytest.raises(ArgumentError, match=r"^activation: needs one of none, softmax, got 'softmx'") as caught:
        combine(activation="softmx")
    assert caught.value.fix == "did you mean softmax?"
    assert combine(activation="softmax").activation == "softmax"
    assert not combine(activation="softmax").gives_log_probabilities
