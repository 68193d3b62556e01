"""Mixtures of normal distributions for each row."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.tasks import Gaussian, MultiTask
from moebius.tasks._weighted import Weighted


def components(rows=50, count=3, quantities=2, generator=None):
    log_weights = torch.randn(rows, count, 1, generator=generator).double().log_softmax(1)
    moments = torch.randn(rows, count, 2 * quantities, generator=generator).double()
    return torch.cat([log_weights, moments], -1)


def torch_mixture(output, floor=1e-3):
    means, raw = output[..., 1:].chunk(2, -1)
    parts = Independent(Normal(means, floor + F.softplus(raw)), 1)
    return MixtureSameFamily(Categorical(logits=output[..., 0]), parts)


@pytest.mark.parametrize("quantities", [1, 2])
def test_losses_and_their_gradients_are_those_of_torchs_mixture(quantities):
    torch.manual_seed(0)
    # As a gate gives them: scores, of which the router takes a softmax.
    scores = torch.randn(50, 3).double().requires_grad_()
    moments, target = torch.randn(50, 3, 2 * quantities).double().requires_grad_(), torch.randn(50, quantities).double()
    output = mb.combine.Components()(moments, mb.routers.Soft()(scores))
    expected = torch_mixture(torch.cat([scores.unsqueeze(-1), moments], -1))
    results = []
    for losses in (Gaussian().row_losses(output, target), -expected.log_prob(target)):
        results.append((losses, *torch.autograd.grad((losses * torch.arange(50)).sum(), (scores, moments))))
    torch.testing.assert_close(*results, atol=1e-10, rtol=1e-10)


def test_moments_and_distribution_are_those_of_torchs_mixture():
    torch.manual_seed(0)
    output, target = components(quantities=1), torch.randn(50, 1).double()
    task, mixture = Gaussian(), torch_mixture(output)
    columns = task.predict(output)
    torch.testing.assert_close(columns["predictions"], mixture.mean.squeeze(1))
    torch.testing.assert_close(columns["scale"], mixture.stddev.squeeze(1))
    means, raw = output[..., 1:].chunk(2, -1)
    scalar = MixtureSameFamily(
        Categorical(logits=output[..., 0]), Normal(means.squeeze(-1), 1e-3 + F.softplus(raw).squeeze(-1))
    )
    torch.testing.assert_close(task.mixture(output).distribution(target).squeeze(1), scalar.cdf(target.squeeze(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_where_the_distribution_function_has_their_probability(dtype):
    torch.manual_seed(0)
    mixture = Gaussian().mixture(components().to(dtype))
    for probability in (0.01, 0.5, 0.95):
        values = mixture.distribution(mixture.quantile(probability))
        torch.testing.assert_close(values, torch.full_like(values, probability), atol=1e-5, rtol=0)


def test_one_distribution_is_torchs_normal():
    output, target = torch.randn(20, 4).double(), torch.randn(20, 2).double()
    normal = Normal(output[:, :2], 1e-3 + F.softplus(output[:, 2:]))
    task = Gaussian()
    torch.testing.assert_close(task.row_losses(output, target), -normal.log_prob(target).sum(1))
    columns = task.predict(output)
    torch.testing.assert_close(columns["lower"], normal.icdf(torch.tensor(0.05).double()))
    torch.testing.assert_close(columns["upper"], normal.icdf(torch.tensor(0.95).double()))
    torch.testing.assert_close(columns["scale"], normal.stddev)


def test_a_component_without_weight_and_weights_that_do_not_sum_to_one():
    output = torch.tensor([[[math.log(0.5), 1.0, 0.0], [-torch.inf, 1e6, 0.0]]])
    half, whole = output, output + torch.tensor([math.log(2), 0.0, 0.0])
    task, target = Gaussian(), torch.tensor([1.0])
    assert (task.row_losses(half, target) - task.row_losses(whole, target)).item() == pytest.approx(math.log(2))
    for name, column in task.predict(half).items():
        torch.testing.assert_close(column, task.predict(whole)[name])
    torch.testing.assert_close(task.predict(half)["predictions"], target)
    torch.testing.assert_close(task.predict(half)["lower"], task.predict(whole[:, :1])["lower"])


def test_intervals_of_the_true_distribution_cover_what_they_say():
    generator = torch.Generator().manual_seed(0)
    output = components(rows=20_000, quantities=1, generator=generator)
    torch.manual_seed(0)
    target = torch_mixture(output).sample()
    metrics = {name: values.mean().item() for name, values in Gaussian().row_metrics(output, target).items()}
    assert metrics["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert metrics["coverage_50"] == pytest.approx(0.5, abs=0.015)
    inside = Gaussian().predict(output)
    covered = (inside["lower"] <= target.squeeze(1)) & (target.squeeze(1) <= inside["upper"])
    assert covered.double().mean().item() == pytest.approx(metrics["coverage_90"], abs=1e-9)
    assert metrics["width_90"] == pytest.approx((inside["upper"] - inside["lower"]).mean().item())
    wide = output.clone()
    wide[..., 2] += 5  # five times as wide, or more: everything is covered
    assert Gaussian().row_metrics(wide, target)["coverage_90"].mean() > 0.99


def test_the_score_is_zero_for_the_training_targets_own_normal_and_has_no_unit():
    target = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 3 + 7
    task = Gaussian(floor=1e-6).for_data(target)
    scale = target.std(correction=0)
    constant = torch.stack([target.mean(), scale.expm1().log()]).expand(400, 2)
    torch.testing.assert_close(task.row_scores(constant, target), torch.zeros(400), atol=1e-4, rtol=0)
    metrics = task.row_metrics(constant, target)
    assert metrics["r2"].mean().item() == pytest.approx(0, abs=1e-5)
    output = torch.stack([target + 0.1, torch.full((400,), 0.5)], 1)
    scores = task.row_scores(output, target)
    assert (scores > 0).double().mean() > 0.9
    raw = (100 * F.softplus(output[:, 1])).expm1().log()
    hundred = torch.stack([100 * output[:, 0], torch.where(raw.isfinite(), raw, 100 * F.softplus(output[:, 1]))], 1)
    in_cents = Gaussian(floor=1e-6).for_data(100 * target).row_scores(hundred, 100 * target)
    torch.testing.assert_close(in_cents, scores, atol=1e-3, rtol=1e-3)


def test_experts_have_their_own_likelihoods_also_where_they_are_mixtures():
    torch.manual_seed(0)
    task, target = Gaussian(), torch.randn(6, 2).double()
    plain, trees = torch.randn(6, 3, 4).double(), torch.stack([components(6), components(6)], 1)
    for outputs in (plain, trees):
        expected = torch.stack([task.row_losses(output, target) for output in outputs.unbind(1)], 1)
        torch.testing.assert_close(task.expert_losses(outputs, target), expected)


@pytest.mark.parametrize(
    ("shape", "model_shape", "accepted"),
    [
        ((2,), (2,), True),
        ((2,), (5, 3), True),
        ((4,), (5, 5), True),
        ((3, 3), (6, 3), True),
        ((4,), (5, 3), False),
        ((3,), (3,), False),
        ((), (), False),
        ((2,), (4, 5, 3), False),
    ],
)
def test_which_outputs_of_experts_are_read(shape, model_shape, accepted):
    assert Gaussian().accepts_expert(shape, model_shape) == accepted
    assert Weighted(Gaussian()).accepts_expert(shape, model_shape) == accepted


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(1, 1), torch.zeros(3), "must give \\(rows, 2\\).*combine=mb.combine.Components"),
        (torch.zeros(1, 2), torch.zeros(3, 2), "must give \\(rows, 4\\)"),
        (torch.zeros(1, 3, 2), torch.zeros(3), "experts, 3\\) of a mixture"),
        ({"a": torch.zeros(1, 2)}, torch.zeros(3), "must give"),
        (torch.zeros(1, 2), torch.tensor([0.0, torch.nan]), "keep = targets.isfinite"),
        (torch.zeros(1, 2), torch.zeros(3, 2, 2), "must give"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_refused(output, target, message):
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        Gaussian().check(output, target)


def test_fitting_outputs_and_targets_pass():
    for output, target in [((1, 2), (3,)), ((1, 2), (3, 1)), ((1, 4), (3, 2)), ((1, 6, 3), (3,)), ((1, 6, 5), (3, 2))]:
        Gaussian().check(torch.zeros(output), torch.zeros(target))


def test_a_mixture_of_classes_and_a_floor_of_zero_are_refused():
    moe = mb.Mixture(mb.gates.Linear(2, 1), [mb.experts.Linear(2, 2)], combine=mb.LogMixture())
    with pytest.raises(ArgumentError, match="Components"):
        Gaussian().for_model(moe)
    with pytest.raises(ArgumentError, match="floor"):
        Gaussian(floor=0)


def test_one_of_several_tasks():
    task = MultiTask({"price": Gaussian(), "speed": Gaussian()})
    output = {"price": torch.randn(4, 2), "speed": components(4, quantities=1)}
    target = {"price": torch.tensor([0.0, torch.nan, 1.0, 2.0]), "speed": torch.randn(4)}
    assert task.for_data(target).row_losses(output, target).isfinite().all()
    assert task.row_metrics(output, target)["price_coverage_90"].isnan().tolist() == [False, True, False, False]


def inverse_problem(rows, seed):
    """x = t + 0.3 sin 2πt + noise, from which t is to be told: up to three branches for one x (Bishop 1994)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(rows, 1, generator=generator)
    return t + 0.3 * torch.sin(2 * math.pi * t) + 0.2 * torch.rand(rows, 1, generator=generator) - 0.1, t


def fitted(count, **options):
    torch.manual_seed(2)
    experts = [mb.experts.MLP(1, 2, hidden=[16]) for _ in range(count)]
    moe = mb.Mixture(mb.gates.MLP(1, count, hidden=[16]), experts, combine=mb.combine.Components())
    settings = {"task": "gaussian", "lr": 0.01, "batch_size": 100, "epochs": 25}
    rows = {"validation": inverse_problem(500, 1), "test": inverse_problem(2000, 2)}
    return mb.fit(moe, inverse_problem(2000, 0), **rows, **{**settings, **options})


def test_a_mixture_beats_one_normal_distribution_where_the_target_has_branches_and_its_intervals_hold():
    several, single = fitted(3), fitted(1)
    assert several.test.loss < single.test.loss - 0.5
    assert several.test.score > single.test.score + 0.5
    assert several.test.metric("coverage_90") == pytest.approx(0.9, abs=0.03)
    assert several.test.metric("coverage_50") == pytest.approx(0.5, abs=0.06)
    # Each expert by itself, the cut to one expert and a perfect choice are read as one distribution each.
    assert len(several.alone) == 3
    assert several.one_expert.loss > several.test.loss
    assert several.oracle >= several.test.score
    losses = torch.stack(
        [
            Gaussian().row_losses(expert(x), t)
            for x, t in [inverse_problem(2000, 2)]
            for expert in several.model.experts
        ],
        1,
    )
    assert losses.amin(1).mean().item() <= several.test.loss


def test_losses_that_compare_experts_train():
    trained = fitted(3, epochs=2, losses=[(mb.losses.best_expert, 0.1), (mb.losses.expectation, 0.1)])
    assert math.isfinite(trained.metrics[-1]["train"]["loss"])
