import math

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.routers.hard_concrete import HardConcrete


def test_worked_in_eval():
    # 1.2 σ(0) − 0.1 = 1/2; σ(ln 3) = 3/4 gives 0.8; σ(5) = 0.9933 is clipped to 1, σ(−5) to 0.
    scores = torch.tensor([[0.0, math.log(3), 5.0, -5.0]])
    routing = HardConcrete(renormalise=False).eval()(scores)
    torch.testing.assert_close(routing.weights, torch.tensor([[0.5, 0.8, 1.0, 0.0]]))
    assert routing.selection.kept_A.tolist() == [True, True, True, False]
    shares = HardConcrete().eval()(scores).weights
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.8, 1.0, 0.0]]) / 2.3)


def test_worked_chance_of_being_open():
    # −low / high = 1/11, and 2/3 · ln 11 = 1.5986.
    routing = HardConcrete()(torch.tensor([[0.0, -2 / 3 * math.log(11)]]))
    expected = torch.tensor([[1 / (1 + 11 ** (-2 / 3)), 0.5]])
    torch.testing.assert_close(routing.aux["open"], expected)
    torch.testing.assert_close(routing.probs, expected)
    assert not routing.distribution


def test_gates_are_open_as_often_as_it_says_and_are_exactly_zero_and_one_in_between():
    torch.manual_seed(0)
    routing = HardConcrete(renormalise=False)(torch.tensor([[-1.0, 1.0, 3.0]]).repeat(20_000, 1))
    opened = (routing.weights > 0).float().mean(0)
    torch.testing.assert_close(opened, routing.aux["open"][0], atol=0.015, rtol=0)
    assert (routing.weights == 1).float().mean(0)[2] > 0.3
    assert routing.weights.max() == 1


def test_a_row_whose_gates_are_all_closed_keeps_its_best_expert_and_can_come_back():
    for renormalise in (True, False):
        scores = torch.tensor([[-5.0, -4.0, -6.0], [-5.0, 2.0, 2.0]], requires_grad=True)
        routing = HardConcrete(renormalise=renormalise).eval()(scores)
        assert routing.weights[0].tolist() == [0.0, 1.0, 0.0]
        routing.weights[0, 1].backward()
        gate = torch.tensor(-4.0).sigmoid()
        torch.testing.assert_close(scores.grad[0], torch.tensor([0.0, 1.2 * gate * (1 - gate), 0.0]))


def test_no_row_is_without_an_expert():
    torch.manual_seed(0)
    weights = HardConcrete()(torch.randn(2000, 4) - 6).weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(2000))
    assert ((weights > 0).sum(-1) == 1).float().mean() > 0.9


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_the_lower_the_temperature_the_more_gates_are_decided(temperature):
    torch.manual_seed(0)
    # With 1000 gates in a row none is alone, and closed ones stay 0.
    z = HardConcrete(temperature, renormalise=False)(torch.zeros(20, 1000)).weights
    # Closed where logit(u) < temperature · logit(1/12), open to the full where above its negative.
    decided = 2 / (1 + 11**temperature)
    assert ((z == 0) | (z == 1)).float().mean().item() == pytest.approx(decided, abs=0.01)


@pytest.mark.parametrize("training", [True, False])
def test_extreme_scores_have_finite_weights_and_gradients(training):
    scores = torch.tensor([[1e4, -1e4, 0.0], [-torch.inf, -1e4, -1e4], [88.0, -88.0, -torch.inf]], requires_grad=True)
    routing = HardConcrete().train(training)(scores)
    (routing.weights.square().sum() + routing.aux["open"].sum()).backward()
    assert routing.weights.isfinite().all()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"low": 0}, {"high": 1}, {"high": 0.9}])
def test_refuses_what_cannot_close_or_open(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        HardConcrete(**arguments)
