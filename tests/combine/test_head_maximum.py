"""max_h Σ_e w_he · y_e, elementwise."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.combine.head_maximum import HeadMaximum
from moebius.routers import Argmax, Heads, PerClass, Soft

MAXIMUM, SUM = HeadMaximum(), mb.WeightedSum()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def taken(values, routing):
    return values[routing.selection.row_A, routing.selection.expert_A]


def test_worked_literal():
    # Weights (3/4, 1/4) give (6, −4), weights (1/2, 1/2) give (4, −8).
    routing = Heads(Soft(), 2)(torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log())
    y = MAXIMUM(torch.tensor([[[8.0, 0.0], [0.0, -16.0]]]), routing)
    torch.testing.assert_close(y, torch.tensor([[6.0, -4.0]]))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 3)])
@pytest.mark.parametrize("router", [Soft(), Soft(normalisation="elu"), Argmax()])
def test_it_is_the_maximum_of_the_heads_mixtures(router, shape):
    values, scores = random(6, 3, *shape), 3 * random(6, 9)
    routing = Heads(router, 3)(scores)
    apart = [SUM(values, replace(router(block), selection=None)) for block in scores.chunk(3, -1)]
    combined = MAXIMUM(values if routing.selection is None else taken(values, routing), routing)
    torch.testing.assert_close(combined, torch.stack(apart).amax(0))


def test_two_mixtures_maximum_is_one_mixture_of_two_heads():
    gates, experts = [nn.Linear(5, 3).double() for _ in range(2)], [nn.Linear(5, 4).double() for _ in range(3)]
    both = nn.Linear(5, 6).double()
    with torch.no_grad():
        both.weight.copy_(torch.cat([gate.weight for gate in gates]))
        both.bias.copy_(torch.cat([gate.bias for gate in gates]))
    x = random(8, 5)
    first, second = (mb.Mixture(gate, experts)(x) for gate in gates)
    torch.testing.assert_close(mb.Mixture(both, experts, Heads(Soft(), 2), MAXIMUM)(x), torch.maximum(first, second))


def test_weights_per_class_of_each_head():
    values, scores = random(6, 3, 4), random(6, 2 * 4 * 3)
    apart = [SUM(values, PerClass(4)(block)) for block in scores.chunk(2, -1)]
    torch.testing.assert_close(MAXIMUM(values, Heads(PerClass(4), 2)(scores)), torch.maximum(*apart))


def test_one_head_is_the_weighted_sum():
    values, routing = random(6, 3, 4), Soft()(random(6, 3))
    assert torch.equal(MAXIMUM(values, routing), SUM(values, routing))


def test_it_is_no_less_than_the_mean():
    values, routing = random(50, 3, 4), Heads(Soft(), 3)(random(50, 9))
    assert (MAXIMUM(values, routing) >= mb.combine.HeadMean()(values, routing) - 1e-12).all()


def test_gradients_are_those_of_finite_differences():
    scores, values = random(4, 6).requires_grad_(), random(4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, v: MAXIMUM(v, Heads(Soft(), 2)(s)), (scores, values))


@pytest.mark.parametrize("router", [Soft(normalisation="elu"), Argmax(), Heads(Soft(), 2), Heads(Argmax(), 2)])
def test_softmax_is_that_of_the_softmaxed(router):
    values = random(6, 3, 4)
    routing = router(random(6, router.gate_outputs(3)))
    inputs = values if routing.selection is None else taken(values, routing)
    torch.testing.assert_close(HeadMaximum(activation="softmax")(inputs, routing), MAXIMUM(inputs.softmax(-1), routing))
