import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.losses.best_fit import best_fit
from moebius.routers.soft import Soft

RANDOM = torch.Generator().manual_seed(0)
SCORES = torch.randn(60, 4, generator=RANDOM, dtype=torch.float64)
LOSSES = 2 * torch.rand(60, 4, generator=RANDOM, dtype=torch.float64)


def test_worked():
    # Best are 1 and 2; with a floor of 1/2 each row is half its best and half its mean.
    losses = torch.tensor([[1.0, 3.0], [4.0, 2.0]])
    assert best_fit(Soft()(torch.zeros(2, 2)), losses).item() == 1.5
    assert best_fit(Soft()(torch.zeros(2, 2)), losses, floor=0.5).item() == pytest.approx((1 + 2 + 2 + 3) / 4)


def test_at_temperature_one_its_gradient_is_that_of_the_mixtures_likelihood():
    scores, losses = SCORES.clone().requires_grad_(), LOSSES.clone().requires_grad_()
    mixture = -(scores.log_softmax(-1) - losses).logsumexp(-1).mean()
    (expected,) = torch.autograd.grad(mixture, losses)
    best_fit(Soft()(scores), losses, temperature=1).backward()
    torch.testing.assert_close(losses.grad, expected)
    assert scores.grad is None


def test_it_is_the_loss_of_the_best_and_the_floor_mixes_in_the_mean():
    routing, best, mean = Soft()(SCORES), LOSSES.min(-1).values.mean(), LOSSES.mean()
    torch.testing.assert_close(best_fit(routing, LOSSES), best)
    torch.testing.assert_close(best_fit(routing, LOSSES, floor=1), mean)
    torch.testing.assert_close(best_fit(routing, LOSSES, floor=0.25), 0.75 * best + 0.25 * mean)


def test_with_a_floor_every_expert_learns_from_every_row():
    losses = LOSSES.clone().requires_grad_()
    best_fit(Soft()(SCORES), losses, floor=0.2).backward()
    assert losses.grad.min().item() == pytest.approx(0.2 / 4 / 60)


def test_an_expert_that_is_not_asked_may_be_infinitely_wrong():
    assert best_fit(Soft()(torch.zeros(1, 2)), torch.tensor([[2.0, torch.inf]])).item() == 2


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"temperature": -1.0}, "at least 0"),
        ({"balanced": -1}, "whole number of at least 0"),
        ({"floor": 1.5}, "0 to 1"),
    ],
)
def test_arguments_are_checked(options, rule):
    with pytest.raises(ArgumentError, match=rule):
        best_fit(Soft()(SCORES), LOSSES, **options)


def test_only_a_prior_has_to_be_a_distribution():
    activations = Soft(normalisation="relu")(SCORES)
    torch.testing.assert_close(best_fit(activations, LOSSES), best_fit(Soft()(SCORES), LOSSES))
    with pytest.raises(ArgumentError, match="normalisation: softmax"):
        best_fit(activations, LOSSES, temperature=1.0)
