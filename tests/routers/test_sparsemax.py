import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from moebius.kit.errors import ArgumentError
from moebius.routers.argmax import Argmax
from moebius.routers.sparsemax import Sparsemax


def test_worked():
    # (1.2, 0.8, −0.5): with two of them t = (1.2 + 0.8 − 1) / 2 = 0.5, above −0.5.
    routing = Sparsemax()(torch.tensor([[1.2, 0.8, -0.5], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(routing.weights, torch.tensor([[0.7, 0.3, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3]))
    assert routing.selection.kept_A.view(3, 3).sum(-1).tolist() == [2, 1, 3]


def test_two_experts_have_the_closed_form():
    scores = torch.linspace(-3, 3, 41, dtype=torch.float64).view(-1, 1) * torch.tensor([[0.5, -0.5]])
    expected = ((scores[:, 0] - scores[:, 1] + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(Sparsemax()(scores).weights, torch.stack([expected, 1 - expected], 1))


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9), st.floats(0.1, 10))
def test_it_is_the_projection_onto_the_simplex(row, temperature):
    scores = torch.tensor([row], dtype=torch.float64)
    z = scores[0].numpy() / temperature
    threshold = brentq(lambda t: (z - t).clip(0).sum() - 1, z.max() - 1, z.max(), xtol=1e-14)
    expected = torch.from_numpy((z - threshold).clip(0))
    torch.testing.assert_close(Sparsemax(temperature)(scores).weights[0], expected, atol=1e-10, rtol=0)


def test_gradients_are_those_of_finite_differences_where_some_experts_are_out():
    scores = torch.tensor([[1.2, 0.8, -0.5, 0.5], [0.1, 0.0, 0.2, -0.1]], dtype=torch.float64, requires_grad=True)
    assert (Sparsemax()(scores).weights[0] == 0).any()
    assert torch.autograd.gradcheck(lambda s: Sparsemax(0.7)(s).weights, scores)


def test_worked_gradient():
    # On the support the Jacobian is the identity less the mean: 1 − 1/2 and −1/2 for two experts, 0 for those out.
    scores = torch.tensor([[1.2, 0.8, -0.5]], requires_grad=True)
    Sparsemax()(scores).weights[0, 0].backward()
    torch.testing.assert_close(scores.grad, torch.tensor([[0.5, -0.5, 0.0]]))


def test_a_shift_of_a_row_changes_nothing():
    scores = torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(Sparsemax()(scores + 1e3).weights, Sparsemax()(scores).weights)


def test_low_temperatures_are_argmax_and_high_ones_uniform():
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Sparsemax(1e-4)(scores).weights, Argmax()(scores).weights)
    torch.testing.assert_close(Sparsemax(1e6)(scores).weights, torch.full((20, 4), 0.25), atol=1e-5, rtol=0)


def test_great_and_infinite_scores():
    scores = torch.tensor([[-torch.inf, 0.5, 0.0], [1e30, -1e30, -1e30], [-torch.inf, -torch.inf, 7.0]])
    scores.requires_grad_()
    weights = Sparsemax()(scores).weights
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.75, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    weights.square().sum().backward()
    assert scores.grad.isfinite().all()


def test_many_experts_still_sum_to_one():
    scores = torch.randn(50, 4000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Sparsemax(100.0)(scores).weights.sum(-1), torch.ones(50))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ArgumentError, match="temperature"):
        Sparsemax(0)
