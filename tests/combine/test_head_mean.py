"""mean_h Σ_e w_he · y_e."""

from dataclasses import replace

import pytest
import torch

import moebius as mb
from moebius.combine.head_mean import HeadMean
from moebius.routers import Argmax, Heads, Soft

MEAN, SUM = HeadMean(), mb.WeightedSum()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def taken(values, routing):
    return values[routing.selection.row_A, routing.selection.expert_A]


def test_worked_literal():
    # Weights (3/4, 1/4) and (1/2, 1/2).
    routing = Heads(Soft(), 2)(torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log())
    y = MEAN(torch.tensor([[[8.0, 0.0], [0.0, 16.0]]]), routing)
    torch.testing.assert_close(y, torch.tensor([[5.0, 6.0]]))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 3)])
def test_it_is_the_mean_of_the_heads_mixtures(shape):
    values, scores = random(6, 3, *shape), random(6, 9)
    apart = [SUM(values, Soft()(block)) for block in scores.chunk(3, -1)]
    torch.testing.assert_close(MEAN(values, Heads(Soft(), 3)(scores)), torch.stack(apart).mean(0))


def test_sparse_is_dense():
    values, routing = random(6, 3, 4), Heads(Argmax(), 2)(random(6, 6))
    torch.testing.assert_close(MEAN(taken(values, routing), routing), MEAN(values, replace(routing, selection=None)))


def test_one_head_is_the_weighted_sum():
    values, routing = random(6, 3, 4), Soft()(random(6, 3))
    assert torch.equal(MEAN(values, routing), SUM(values, routing))


def test_heads_that_agree_are_one():
    values, scores = random(6, 3, 4), random(6, 3)
    torch.testing.assert_close(MEAN(values, Heads(Soft(), 4)(scores.repeat(1, 4))), SUM(values, Soft()(scores)))


def test_gradients_are_those_of_finite_differences():
    scores, values = random(4, 6).requires_grad_(), random(4, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, v: MEAN(v, Heads(Soft(), 2)(s)), (scores, values))


@pytest.mark.parametrize("router", [Soft(normalisation="elu"), Argmax(), Heads(Soft(), 2), Heads(Argmax(), 2)])
def test_softmax_is_that_of_the_softmaxed(router):
    values = random(6, 3, 4)
    routing = router(random(6, router.gate_outputs(3)))
    inputs = values if routing.selection is None else taken(values, routing)
    torch.testing.assert_close(HeadMean(activation="softmax")(inputs, routing), MEAN(inputs.softmax(-1), routing))
