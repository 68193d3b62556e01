import pytest
import torch
from torch.nn import functional as F

from moebius.losses.expectation import expectation
from moebius.routers.soft import Soft

RANDOM = torch.Generator().manual_seed(0)
SCORES = torch.randn(6, 4, generator=RANDOM, dtype=torch.float64)
LOSSES = torch.rand(6, 4, generator=RANDOM, dtype=torch.float64)


def test_worked():
    routing = Soft()(torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log())
    assert expectation(routing, torch.tensor([[1.0, 2.0], [4.0, 0.0]])).item() == pytest.approx((1.25 + 2) / 2)


def test_of_a_gate_that_has_decided_it_is_the_mean_loss_of_the_chosen():
    chosen = SCORES.argmax(-1)
    routing = Soft()(F.one_hot(chosen, 4).double().log())
    torch.testing.assert_close(expectation(routing, LOSSES), LOSSES[torch.arange(6), chosen].mean())


def test_each_expert_learns_by_its_probability_and_the_gate_from_who_beats_the_average():
    scores, losses = SCORES.clone().requires_grad_(), LOSSES.clone().requires_grad_()
    expectation(Soft()(scores), losses).backward()
    probs = SCORES.softmax(-1)
    torch.testing.assert_close(losses.grad, probs / 6)
    average = (probs * LOSSES).sum(-1, keepdim=True)
    torch.testing.assert_close(scores.grad, probs * (LOSSES - average) / 6)


def test_it_is_never_below_the_loss_of_the_mixture_of_likelihoods():
    mixture = -(SCORES.log_softmax(-1) - LOSSES).logsumexp(-1).mean()
    assert expectation(Soft()(SCORES), LOSSES) > mixture


def test_an_expert_that_is_ruled_out_may_be_infinitely_wrong():
    routing = Soft()(torch.tensor([[0.0, -torch.inf]]))
    assert expectation(routing, torch.tensor([[2.0, torch.inf]])).item() == 2
