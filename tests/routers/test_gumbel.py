import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.routers.argmax import Argmax
from moebius.routers.gumbel import Gumbel


def test_in_eval_it_is_argmax():
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    ours, expected = Gumbel().eval()(scores), Argmax()(scores)
    for name in ("weights", "log_weights", "probs"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name
    for name in ("row_A", "expert_A", "weight_A", "kept_A"):
        assert torch.equal(getattr(ours.selection, name), getattr(expected.selection, name)), name
    assert not ours.straight_through


def test_worked_gradient():
    # With two experts y_0 = σ(d / τ), d the difference of the noisy scores, so dy_0/ds_0 = y_0 (1 − y_0) / τ.
    scores = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    routing = Gumbel(temperature=0.5)(scores)
    routing.weights[0, 0].backward()
    torch.manual_seed(3)
    noise = -torch.empty(1, 2, dtype=torch.float64).exponential_().log()
    y = torch.sigmoid((scores + noise).detach() @ torch.tensor([2.0, -2.0], dtype=torch.float64))
    slope = 2 * y * (1 - y)
    torch.testing.assert_close(scores.grad, torch.stack([slope, -slope], 1))
    assert slope > 1e-3


def test_training_weights_are_exactly_one_hot_and_all_experts_run():
    routing = Gumbel()(torch.randn(50, 4))
    assert sorted(routing.weights.flatten().unique().tolist()) == [0.0, 1.0]
    assert (routing.weights.sum(-1) == 1).all()
    assert routing.selection is None
    assert routing.straight_through


def test_experts_are_drawn_from_the_gates_distribution_at_any_temperature():
    scores = torch.tensor([[0.6, 0.3, 0.1]]).log().expand(20_000, 3)
    for temperature in (0.1, 5.0):
        torch.manual_seed(0)
        shares = Gumbel(temperature)(scores).weights.mean(0)
        torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.015, rtol=0)


def test_probs_have_no_noise():
    scores = torch.randn(5, 3)
    torch.testing.assert_close(Gumbel(0.1)(scores).probs, scores.softmax(-1))


def test_the_temperature_may_change_during_training():
    scores = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    router, sizes = Gumbel(100.0), []
    for router.temperature in (100.0, 1.0):
        torch.manual_seed(0)
        (slope,) = torch.autograd.grad(router(scores).weights[:, 0].sum(), scores)
        sizes.append(slope.abs().sum())
    assert sizes[0] < 0.1 * sizes[1]


def test_counts_what_was_drawn():
    for training in (True, False):
        routing = Gumbel().train(training)(torch.randn(30, 4))
        torch.testing.assert_close(routing.aux["assigned"], routing.weights.detach().sum(0))


def test_an_expert_that_is_ruled_out_is_never_drawn():
    scores = torch.tensor([[0.0, -torch.inf, 0.0]]).repeat(500, 1).requires_grad_()
    weights = Gumbel(0.3)(scores).weights
    assert weights[:, 1].count_nonzero() == 0
    weights[:, 0].sum().backward()
    assert scores.grad.isfinite().all()


def test_it_learns_to_route_through_a_mixture_of_probabilities():
    """Two experts that each know the answer for one half of the rows: the gate finds out which."""
    torch.manual_seed(0)
    x = torch.randn(256, 2)
    target = (x[:, 0] > 0).long()
    experts = [nn.Linear(2, 2), nn.Linear(2, 2)]
    for expert, bias in zip(experts, ([3.0, -3.0], [-3.0, 3.0]), strict=True):
        expert.weight.data.zero_()
        expert.bias.data.copy_(torch.tensor(bias))
    moe = mb.Mixture(mb.gates.Linear(2, 2), experts, Gumbel(), mb.LogMixture())
    optimizer = torch.optim.Adam(moe.gate.parameters(), 0.1)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.nll_loss(moe(x), target).backward()
        optimizer.step()
    assert (moe.eval()(x).argmax(-1) == target).float().mean() > 0.95


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ArgumentError, match="temperature"):
        Gumbel(0)
