import math

import pytest
import torch
from torch.nn import functional as F

from moebius.routers.noisy_top_k import NoisyTopK
from moebius.routers.top_k import TopK

SCORES = torch.tensor([[2.0, 1.0, 0.0, -1.0]])


def test_the_gate_says_the_scale_of_the_noise():
    assert NoisyTopK(2).gate_outputs(4) == 8
    assert NoisyTopK(2, learned_noise=False).gate_outputs(4) == 4


def test_no_noise_in_eval():
    both = torch.cat([SCORES, torch.full((1, 4), 5.0)], 1)
    torch.testing.assert_close(NoisyTopK(2).eval()(both).weights, TopK(2)(SCORES).weights)
    assert torch.equal(NoisyTopK(2).eval()(both).scores, SCORES)


def test_noise_of_the_scale_that_was_said_decides_while_training():
    torch.manual_seed(0)
    quiet = torch.cat([SCORES, torch.full((1, 4), -30.0)], 1).expand(500, -1)
    assert (NoisyTopK(1)(quiet).weights.argmax(-1) == 0).all()
    loud = torch.cat([SCORES, torch.full((1, 4), 30.0)], 1).expand(500, -1)
    assert (NoisyTopK(1)(loud).weights.argmax(-1).bincount(minlength=4) > 80).all()


def test_the_load_is_how_often_an_expert_would_be_chosen_if_its_noise_were_drawn_anew():
    """Equation 9, against drawing it anew many times."""
    torch.manual_seed(3)
    router = NoisyTopK(2, learned_noise=False, noise=0.7)
    torch.manual_seed(5)
    routing = router(SCORES)
    torch.manual_seed(5)
    noisy = SCORES + 0.7 * torch.randn_like(SCORES)
    for expert in range(4):
        others = noisy[0, [other for other in range(4) if other != expert]]
        again = SCORES[0, expert] + 0.7 * torch.randn(40_000)
        drawn = (again > others.topk(2).values[-1]).float().mean()
        torch.testing.assert_close(routing.aux["load"][0, expert], drawn, rtol=0, atol=0.01)


def test_the_load_trains_scores_and_noise():
    torch.manual_seed(0)
    both = torch.randn(8, 8, requires_grad=True)
    NoisyTopK(2)(both).aux["load"][:, 0].sum().backward()
    assert both.grad[:, :4].abs().sum() > 0
    assert both.grad[:, 4:].abs().sum() > 0


def test_in_eval_the_load_is_what_was_chosen_and_nothing_is_divided_by_the_noise():
    routing = NoisyTopK(2).eval()(torch.cat([SCORES, torch.full((1, 4), -torch.inf)], 1))
    assert routing.aux["load"].tolist() == [[1.0, 1.0, 0.0, 0.0]]


def test_one_expert_weighs_its_probability():
    routing = NoisyTopK(1, noise=0.0)(torch.zeros(1, 8))
    assert math.isclose(routing.weights.max().item(), 0.25)


def test_all_experts_have_a_load_of_one():
    torch.testing.assert_close(NoisyTopK(4)(torch.randn(3, 8)).aux["load"], torch.ones(3, 4))


def test_the_noise_can_be_turned_down():
    torch.manual_seed(0)
    router = NoisyTopK(1)
    router.noise = 0.0
    both = torch.randn(50, 8)
    assert torch.equal(router(both).probs, F.softmax(both[:, :4], -1))


def test_worked():
    """Without noise: a softmax over the two largest, and over all where there is one."""
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).log()
    two, one = (NoisyTopK(k, learned_noise=False, noise=0.0)(scores).weights for k in (2, 1))
    torch.testing.assert_close(two, torch.tensor([[4 / 7, 3 / 7, 0.0, 0.0]]))
    torch.testing.assert_close(one, torch.tensor([[0.4, 0.0, 0.0, 0.0]]))


def test_loads_are_probabilities_that_hold_for_the_chosen_more_than_for_the_others():
    torch.manual_seed(0)
    routing = NoisyTopK(2, learned_noise=False)(torch.zeros(200, 5))
    load, chosen = routing.aux["load"], routing.weights != 0
    assert ((load >= 0) & (load <= 1)).all()
    assert load[chosen].min() > 0
    # Who is ahead by luck of the others has more than an even chance, by how much depends on the others alone.
    assert load[chosen].mean() > load[~chosen].mean()


@pytest.mark.parametrize("ruled_out", [1, 2, 3])
def test_experts_that_are_ruled_out_have_no_load_and_break_no_gradient(ruled_out):
    both = torch.zeros(6, 8)
    both[:, :ruled_out] = -torch.inf
    both.requires_grad_()
    load = NoisyTopK(2)(both).aux["load"]
    load.sum().backward()
    assert (load[:, :ruled_out] == 0).all()
    assert (load[:, ruled_out:] > 0).all()
    assert both.grad.isfinite().all()


def test_a_scale_that_underflows_breaks_no_gradient():
    both = torch.cat([SCORES * 1e3, torch.full((1, 4), -300.0)], 1).requires_grad_()
    load = NoisyTopK(1)(both).aux["load"]
    load.sum().backward()
    assert load.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert both.grad.isfinite().all()
