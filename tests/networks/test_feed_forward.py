"""The activations of feed-forward blocks and their derivatives."""

import pytest
import torch
from torch.nn import functional as F

from moebius.networks.feed_forward import FEED_FORWARD, GATED, feed_forward_activation, feed_forward_activation_backward

X = torch.linspace(-3, 3, 48, dtype=torch.float64).view(6, 8)


def test_worked():
    """Φ(1) = 0.841345; swiglu(1, 2) = 2 σ(1) = 1.462117."""
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert feed_forward_activation("gelu", x)[0].item() == pytest.approx(0.841345, abs=1e-6)
    assert feed_forward_activation("relu2", torch.cat([x, -x])).tolist() == [1, 4, 0, 0]
    assert feed_forward_activation("swiglu", x).tolist() == pytest.approx([1.462117], abs=1e-6)
    assert feed_forward_activation("geglu", x).tolist() == pytest.approx([2 * 0.841345], abs=1e-6)


def test_they_are_torchs():
    torch.testing.assert_close(feed_forward_activation("gelu", X), F.gelu(X))
    torch.testing.assert_close(feed_forward_activation("swiglu", X), F.silu(X[:, :4]) * X[:, 4:])


@pytest.mark.parametrize("name", FEED_FORWARD)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [6, 1, 0])
def test_the_derivative_is_autograds(name, dtype, rows):
    inner = X[:rows].to(dtype).requires_grad_()
    y = feed_forward_activation(name, inner)
    assert y.shape == (rows, 4 if name in GATED else 8)
    gradient = torch.linspace(-1, 2, y.numel()).view(y.shape).to(dtype)
    (expected,) = torch.autograd.grad(y, inner, gradient)
    result = feed_forward_activation_backward(name, inner.detach(), gradient)
    assert result.dtype == dtype
    # Products in bf16 are rounded in another order.
    torch.testing.assert_close(result, expected, **({"rtol": 0.03, "atol": 0.03} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("name", FEED_FORWARD)
def test_far_out_values_and_derivatives_are_finite(name):
    inner = torch.tensor([[-1e4, 1e4, 1e4, -1e4]])
    y = feed_forward_activation(name, inner)
    assert y.isfinite().all()
    assert feed_forward_activation_backward(name, inner, torch.ones_like(y)).isfinite().all()
