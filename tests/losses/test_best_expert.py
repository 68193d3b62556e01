import pytest
import torch
from torch.nn import functional as F

from moebius.losses._targets import responsibilities
from moebius.losses.best_expert import best_expert
from moebius.routers.argmax import Argmax
from moebius.routers.soft import Soft

RANDOM = torch.Generator().manual_seed(0)
SCORES = torch.randn(60, 4, generator=RANDOM, dtype=torch.float64)
LOSSES = 2 * torch.rand(60, 4, generator=RANDOM, dtype=torch.float64)


def targets(scores, losses, temperature, balanced=0):
    return responsibilities(Soft()(scores), losses, temperature, balanced)


def test_worked():
    # Best are expert 0 and expert 1, with ln 2 and ln 4; at temperature 1 (1/2 e⁻¹, 1/2 e⁻²) is (0.731, 0.269).
    routing = Soft()(torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log())
    loss = best_expert(routing, torch.tensor([[1.0, 2.0], [4.0, 3.0]]))
    assert loss.item() == pytest.approx((0.693147 + 1.386294) / 2)
    h = targets(torch.zeros(1, 2), torch.tensor([[1.0, 2.0]]), 1.0)
    torch.testing.assert_close(h, torch.tensor([[0.731059, 0.268941]]))


def test_at_temperature_zero_it_is_the_cross_entropy_to_the_expert_of_least_loss():
    expected = F.cross_entropy(SCORES, LOSSES.argmin(-1))
    torch.testing.assert_close(best_expert(Soft()(SCORES), LOSSES), expected)
    torch.testing.assert_close(best_expert(Argmax()(SCORES), LOSSES), expected)


def test_of_experts_that_tie_the_first_is_best():
    assert targets(torch.tensor([[0.0, 5.0, 0.0]]), torch.tensor([[2.0, 1.0, 1.0]]), 0.0).tolist() == [[0, 1, 0]]


def test_at_temperature_one_its_gradient_is_that_of_the_mixtures_likelihood():
    scores, losses = SCORES.clone().requires_grad_(), LOSSES.clone().requires_grad_()
    mixture = -(scores.log_softmax(-1) - losses).logsumexp(-1).mean()
    (expected,) = torch.autograd.grad(mixture, scores)
    best_expert(Soft()(scores), losses, temperature=1).backward()
    torch.testing.assert_close(scores.grad, expected)
    assert losses.grad is None


def test_towards_temperature_zero_the_prior_stays():
    h = targets(SCORES, LOSSES, 1e-4)
    torch.testing.assert_close(h, F.one_hot((SCORES - LOSSES).argmax(-1), 4).double())
    assert not torch.equal(h, targets(SCORES, LOSSES, 0.0))


def test_a_high_temperature_asks_all_alike():
    torch.testing.assert_close(targets(SCORES, LOSSES, 1e6), torch.full_like(SCORES, 0.25), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("temperature", "off"), [(1.0, 0.01), (0.3, 0.2), (0.0, 3.0)])
def test_balanced_targets_give_all_experts_equally_many_rows(temperature, off):
    # The first expert is best nearly everywhere.
    losses = LOSSES - torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    before = targets(0 * SCORES, losses, temperature)
    after = targets(0 * SCORES, losses, temperature, balanced=30)
    assert before.sum(0)[0] > 45
    torch.testing.assert_close(after.sum(0), torch.full((4,), 15.0, dtype=torch.float64), atol=off, rtol=0)
    torch.testing.assert_close(after.sum(1), torch.ones(60, dtype=torch.float64))


def test_impossible_rows_go_where_the_gate_says_and_impossible_experts_get_none():
    losses = torch.tensor([[torch.inf, torch.inf], [torch.inf, 1.0]])
    h = targets(torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), losses, 1.0)
    torch.testing.assert_close(h, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    assert targets(torch.zeros(2, 2), losses, 0.0, balanced=2).isfinite().all()


def test_the_gate_learns_even_where_the_best_experts_probability_is_no_longer_a_number():
    scores = torch.tensor([[0.0, -500.0]], requires_grad=True)
    best_expert(Soft()(scores), torch.tensor([[1.0, 0.0]])).backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[1.0, -1.0]]))
