import pytest
import torch
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.routers.gumbel_softmax import GumbelSoftmax, _stratified_gumbel

EULER = 0.5772156649


def test_in_training_it_is_torchs_gumbel_softmax_with_its_gradient():
    scores = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for sample in (lambda: GumbelSoftmax(0.7)(scores).weights, lambda: F.gumbel_softmax(scores, tau=0.7)):
        torch.manual_seed(0)
        weights = sample()
        results.append((weights, *torch.autograd.grad((weights * torch.arange(4)).sum(), scores)))
    torch.testing.assert_close(*results)
    assert results[0][1].any()


def test_worked_example_of_one_sample_in_eval():
    # One sample has the median of the noise for every expert, so that it is the softmax of the scores.
    scores = torch.randn(5, 3)
    torch.testing.assert_close(GumbelSoftmax(samples=1).eval()(scores).weights, scores.softmax(-1))


@pytest.mark.parametrize(("temperature", "experts"), [(1.0, 2), (1.0, 4), (0.3, 4), (2.0, 16)])
def test_eval_is_closer_to_the_expected_weights_than_as_many_independent_samples(temperature, experts):
    torch.manual_seed(0)
    scores = 2 * torch.randn(100, experts, dtype=torch.float64)
    noise = -torch.empty(20_000, 1, experts, dtype=torch.float64).exponential_().log()
    expected = torch.stack([((row + noise[:, 0]) / temperature).softmax(-1).mean(0) for row in scores])
    weights = GumbelSoftmax(temperature, samples=10).eval()(scores).weights
    ten = -torch.empty(10, 100, experts, dtype=torch.float64).exponential_().log()
    independent = ((scores + ten) / temperature).softmax(-1).mean(0)
    assert (weights - expected).square().mean() < 0.6 * (independent - expected).square().mean()
    # No expert is preferred for every row by the draw of the fixed noise.
    assert (weights - expected).mean(0).abs().max() < 0.03


def test_every_expert_has_the_same_noise_in_another_order():
    noise = _stratified_gumbel(10, 6, torch.zeros(1, dtype=torch.float64))
    ordered = noise.sort(0).values
    torch.testing.assert_close(ordered, ordered[:, :1].expand(10, 6))
    assert len({tuple(column.tolist()) for column in noise.T}) == 6
    assert noise.mean().item() == pytest.approx(EULER, abs=0.08)


def test_many_samples_at_a_low_temperature_are_the_gates_distribution():
    # The largest of scores + Gumbel noise is expert e with the probability of the softmax.
    scores = torch.tensor([[0.6, 0.3, 0.1]]).log()
    weights = GumbelSoftmax(0.01, samples=4000).eval()(scores).weights
    torch.testing.assert_close(weights, torch.tensor([[0.6, 0.3, 0.1]]), atol=0.02, rtol=0)


def test_a_high_temperature_evens_out():
    scores = torch.tensor([[3.0, 0.0]])
    for training in (True, False):
        weights = GumbelSoftmax(1e4).train(training)(scores).weights
        torch.testing.assert_close(weights, torch.full((1, 2), 0.5), atol=1e-2, rtol=0)


def test_rows_have_noise_of_their_own_in_training_and_none_in_eval():
    scores = torch.zeros(2, 3)
    first, second = GumbelSoftmax()(scores).weights
    assert not torch.equal(first, second)
    torch.testing.assert_close(*GumbelSoftmax().eval()(scores).weights)
    torch.testing.assert_close(GumbelSoftmax()(scores).probs, torch.full((2, 3), 1 / 3))


@pytest.mark.parametrize("training", [True, False])
def test_an_expert_that_is_ruled_out_has_no_weight_and_finite_gradients(training):
    scores = torch.tensor([[0.0, -torch.inf, 0.0]]).repeat(9, 1).requires_grad_()
    routing = GumbelSoftmax().train(training)(scores)
    assert routing.weights[:, 1].count_nonzero() == 0
    assert (routing.log_weights[:, 1] == -torch.inf).all()
    (routing.weights[:, 0].sum() + routing.log_weights[:, 2].sum()).backward()
    assert scores.grad.isfinite().all()


def test_the_mean_of_the_weights_gives_the_mean_of_the_outputs():
    torch.manual_seed(0)
    moe = mb.Mixture(mb.gates.Linear(3, 4), [mb.experts.Linear(3, 2) for _ in range(4)], GumbelSoftmax()).eval()
    x = torch.randn(6, 3)
    outputs = torch.stack([expert(x) for expert in moe.experts], 1)
    noise = _stratified_gumbel(10, 4, x)
    samples = [((moe.gate(x) + g).softmax(-1).unsqueeze(-1) * outputs).sum(1) for g in noise]
    torch.testing.assert_close(moe(x), torch.stack(samples).mean(0))


def test_it_trains_a_mixture_of_densities():
    torch.manual_seed(0)
    experts = [mb.experts.Linear(1, 2) for _ in range(2)]
    moe = mb.Mixture(mb.gates.Linear(1, 2), experts, GumbelSoftmax(), mb.combine.Components())
    mb.tasks.Gaussian().row_losses(moe(torch.randn(8, 1)), torch.randn(8)).mean().backward()
    assert moe.gate.linear.weight.grad.any()


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"samples": 0}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        GumbelSoftmax(**arguments)
