import math

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.routers.dselect_k import DSelectK


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_worked():
    # S(1/4) = −2/64 + 3/8 + 1/2 = 27/32 and S(0) = 1/2, the lowest digit first: codes 00, 10, 01, 11.
    routing = DSelectK(1, experts=4)(torch.tensor([[0.25, 0.0, 7.0]]))
    torch.testing.assert_close(routing.weights, torch.tensor([[5.0, 27.0, 5.0, 27.0]]) / 64)
    torch.testing.assert_close(routing.scores, routing.weights.log())


def test_worked_with_two_selectors():
    # Selectors that have decided on experts 1 and 2 with logits 0 and ln 3.
    routing = DSelectK(2, experts=4)(torch.tensor([[1.0, -1.0, -1.0, 1.0, 0.0, math.log(3)]]))
    torch.testing.assert_close(routing.weights, torch.tensor([[0.0, 0.25, 0.75, 0.0]]))
    assert routing.selection.kept_A.tolist() == [False, True, True, False]
    assert routing.aux["selectors"].tolist() == [[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]]


def test_worked_where_a_code_names_no_expert():
    # Of three experts' codes 00, 10, 01 and nobody's 11, with 5/64, 27/64, 5/64 and 27/64: 9/64 more for each.
    routing = DSelectK(1, experts=3)(torch.tensor([[0.25, 0.0, 0.0]]))
    torch.testing.assert_close(routing.weights, torch.tensor([[14.0, 36.0, 14.0]]) / 64)


@pytest.mark.parametrize("experts", [1, 2, 3, 5, 8])
def test_a_gate_that_says_nothing_weighs_all_alike(experts):
    router = DSelectK(2, experts)
    weights = router(torch.zeros(3, router.gate_outputs(experts))).weights
    torch.testing.assert_close(weights, torch.full((3, experts), 1 / experts))


@pytest.mark.parametrize("experts", [2, 3, 5, 8])
def test_every_expert_has_a_code_that_chooses_it_alone(experts):
    router = DSelectK(1, experts)
    number = torch.arange(experts).unsqueeze(1) >> torch.arange(router.digits)
    scores = torch.cat([(number % 2) * 2.0 - 1, torch.zeros(experts, 1)], 1).requires_grad_()
    routing = router(scores)
    assert torch.equal(routing.weights, torch.eye(experts))
    assert routing.selection.kept_A.sum() == experts
    (routing.weights * torch.arange(experts)).sum().backward()
    assert scores.grad.count_nonzero() == 0


@pytest.mark.parametrize("experts", [3, 4, 6])
def test_selectors_are_distributions(experts):
    router = DSelectK(3, experts)
    scores = 0.6 * random(500, router.gate_outputs(experts))
    selectors = router(scores).aux["selectors"]
    assert (selectors >= 0).all()
    torch.testing.assert_close(selectors.sum(-1), torch.ones(500, 3, dtype=torch.float64))


@pytest.mark.parametrize("end", [-1, 1])
def test_a_digit_that_has_nearly_settled_still_leaves_the_other_expert_its_share(end):
    # t² (3 − 2t) with t = 2⁻¹⁴, at both ends.
    weights = DSelectK(1, experts=2)(torch.tensor([[end * (0.5 - 2**-14), 0.0]])).weights
    assert weights.min().item() == pytest.approx(2**-28 * (3 - 2**-13), rel=1e-5)


def test_settled_selectors_run_k_experts_at_most():
    router = DSelectK(2, experts=8)
    weights = router(random(200, router.gate_outputs(8)).sign()).weights
    assert (weights > 0).sum(-1).max() == 2


@pytest.mark.parametrize("experts", [4, 5])
def test_the_slope_is_continuous_where_a_digit_settles(experts):
    router = DSelectK(1, experts).double()
    z = (0.5 + torch.tensor([-1e-6, 1e-6], dtype=torch.float64)).requires_grad_()
    others = torch.full((2, router.gate_outputs(experts) - 1), 0.1, dtype=torch.float64)
    weights = router(torch.cat([z.unsqueeze(1), others], 1)).weights
    (slope,) = torch.autograd.grad((weights * torch.arange(experts)).sum(), z)
    torch.testing.assert_close(weights[0], weights[1], atol=1e-9, rtol=0)
    torch.testing.assert_close(slope[0], slope[1], atol=1e-4, rtol=0)


def test_a_wider_step_settles_later():
    scores = torch.tensor([[0.5, -0.5, 0.0]])
    assert DSelectK(1, 4, gamma=1)(scores).selection.kept_A.sum() == 1
    assert DSelectK(1, 4, gamma=2)(scores).selection.kept_A.sum() == 4


def test_gradients_stay_finite_at_the_ends_of_the_step():
    router = DSelectK(2, experts=5)
    scores = torch.tensor([[-0.5, 0.5, 0.5 - 1e-7, -0.5 + 1e-7, 0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    routing = router(scores)
    (routing.scores.sum() + routing.weights.square().sum()).backward()
    assert routing.scores.isfinite().all()
    assert scores.grad.isfinite().all()


def test_the_gate_gives_digits_and_logits():
    assert [DSelectK(3, experts).gate_outputs(experts) for experts in (1, 2, 3, 4, 5, 16)] == [3, 6, 9, 9, 12, 15]
    with pytest.raises(ArgumentError, match="made for 4 experts"):
        DSelectK(1, 4).gate_outputs(5)
    with pytest.raises(ArgumentError, match="gamma"):
        DSelectK(1, 4, gamma=0)
