from math import log

import pytest
import torch

from moebius.losses.z_loss import z_loss
from moebius.routers.soft import Soft

SCORES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_worked():
    # Normalisers 2 and e + e = 2e.
    value = z_loss(Soft()(torch.tensor([[0.0, 0.0], [1.0, 1.0]])))
    assert value.item() == pytest.approx((log(2) ** 2 + (1 + log(2)) ** 2) / 2)


def test_it_is_zero_for_log_probabilities_and_sees_the_shift_that_softmax_does_not():
    normalised = SCORES.log_softmax(-1)
    assert z_loss(Soft()(normalised)).item() == pytest.approx(0, abs=1e-12)
    assert z_loss(Soft()(normalised + 3)).item() == pytest.approx(9)


def test_its_gradient_is_twice_the_logarithm_times_the_softmax():
    scores = SCORES.clone().requires_grad_()
    z_loss(Soft()(scores)).backward()
    expected = 2 * SCORES.logsumexp(-1, keepdim=True) * SCORES.softmax(-1) / 5
    torch.testing.assert_close(scores.grad, expected)


def test_a_row_that_says_nothing_adds_nothing():
    none = torch.full((1, 3), -torch.inf, dtype=torch.float64)
    scores = torch.cat([SCORES, none]).requires_grad_()
    loss = z_loss(Soft()(scores))
    loss.backward()
    torch.testing.assert_close(loss, z_loss(Soft()(SCORES)) * 5 / 6)
    assert scores.grad.isfinite().all()
    assert scores.grad[5].count_nonzero() == 0


def test_large_scores_of_bf16_are_squared_in_float32():
    scores = torch.full((1, 2), 200.0, dtype=torch.bfloat16)
    assert z_loss(Soft()(scores)).item() == pytest.approx((200 + log(2)) ** 2, rel=1e-6)
