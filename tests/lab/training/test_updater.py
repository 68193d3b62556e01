"""Steps of several batches: the gradient is that of one batch of all their rows."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.errors import TrainingError
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop


@pytest.fixture
def float64(small_data):
    """120 rows with pixels in float64, so that agreement is not a matter of rounding."""

    def widen(split):
        return replace(split, images=split.images.double() / 255)

    data = small_data(validation_rows=40)
    return replace(data, train=widen(data.train), validation=widen(data.validation), test=widen(data.test))


@pytest.fixture
def train(float64, settings, build, tmp_path, alone):
    def trained(name, **changes):
        chosen = settings(**changes)
        create = build(float64)
        return alone(lambda: create().double(), float64, chosen, 0, tmp_path / name).train()

    return trained


def assert_same(first, second, tolerance=1e-9):
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=0, atol=tolerance)


CHANGES = {
    "plain": {},
    "clipped": {"clip_norm": 0.05},
    "penalised": {"l2": {"weight": 1e-2}},
    "scheduled": {"optimizer": {"kind": "sgd", "lr": {"kind": "cosine", "start": 0.5, "end": 0.0, "epochs": 2}}},
    "late experts": {"experts": {"start_epoch": 0.5}},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(("batch_size", "accumulate"), [(10, 4), (11, 4), (7, 6), (120, 3)])
def test_equals_one_batch_of_all_rows(name, batch_size, accumulate, train):
    """Also where the last step of an epoch has fewer batches, and the last batch fewer rows."""
    small = train("small", batch_size=batch_size, accumulate=accumulate, **CHANGES[name])
    large = train("large", batch_size=batch_size * accumulate, **CHANGES[name])
    assert_same(small.model, large.model)
    for entry, expected in zip(small.metrics, large.metrics, strict=True):
        assert entry["train"]["loss"] == pytest.approx(expected["train"]["loss"], abs=1e-9)
        assert entry["train"]["accuracy"] == expected["train"]["accuracy"]
        assert entry["train"]["terms"] == pytest.approx(expected["train"]["terms"], abs=1e-9)


def test_differs_from_the_same_batches_one_by_one(train):
    first, second = train("one by one", batch_size=10), train("added", batch_size=10, accumulate=4)
    assert not torch.allclose(first.model.gate.linear.weight, second.model.gate.linear.weight)


def test_a_gate_loss_is_the_mean_over_batches(train):
    losses = [{"kind": "batch_entropy", "weight": 0.5}]
    several = train("several", batch_size=30, accumulate=4, epochs=1, losses=losses)
    joint = train("joint", batch_size=120, epochs=1, losses=losses)
    # Of the untrained model in both: the entropy of a mean is not the mean of entropies.
    first, second = (trained.metrics[0]["train"]["terms"] for trained in (several, joint))
    assert first["cross_entropy"] == pytest.approx(second["cross_entropy"], abs=1e-12)
    assert abs(first["batch_entropy"] - second["batch_entropy"]) > 1e-6


def test_a_cohort_of_runs_accumulates_like_each_alone(small_data, settings, build, tmp_path, alone):
    data, chosen = small_data(), settings(batch_size=11, accumulate=4, clip_norm=0.05)
    members = [Member(build(data), chosen, seed, tmp_path / f"{seed}") for seed in range(3)]
    joint = [trained for _, trained in Loop(members, data, tmp_path / "cohort.safetensors").train()]
    for seed, trained in enumerate(joint):
        single = alone(build(data), data, chosen, seed, tmp_path / f"alone-{seed}").train()
        assert_same(trained.model, single.model, 1e-4)


@pytest.mark.parametrize("after", [(1,), (5,), (3, 2)])
def test_an_interrupted_training_ends_in_the_same_bits(after, small_data, settings, build, interrupted, tmp_path):
    # 15 batches of 8 rows in 4 steps: also inside a step, whose batches are then repeated.
    data, chosen = small_data(), settings(batch_size=8, accumulate=4)
    whole = interrupted(tmp_path / "whole", build(data), data, chosen)
    pieces = interrupted(tmp_path / "pieces", build(data), data, chosen, tuple(4 * steps + 2 for steps in after))
    assert whole.metrics == pieces.metrics
    assert all(map(torch.equal, whole.model.state_dict().values(), pieces.model.state_dict().values()))


def test_a_step_is_an_update_in_events_and_callbacks():
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    steps = []
    mb.fit(moe, (x, (x[:, 0] > 0).long()), validation=0.0, epochs=2, batch_size=10, accumulate=4, on_step=steps.append)
    assert [(moment.epoch, moment.step, moment.steps) for moment in steps] == [
        (1, 1, 6), (1, 2, 6), (1, 3, 6), (2, 4, 6), (2, 5, 6), (2, 6, 6)
    ]  # fmt: skip


def test_bf16_accumulates_in_the_precision_of_the_parameters():
    x = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
    weights = []
    for batch_size, accumulate in ((20, 3), (60, 1)):
        torch.manual_seed(0)
        moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
        options = {"batch_size": batch_size, "accumulate": accumulate, "precision": "bf16", "optimizer": "sgd"}
        mb.fit(moe, (x, (x[:, 0] > 0).long()), validation=0.0, epochs=3, lr=0.1, **options)
        assert moe.gate.linear.weight.dtype == torch.float32
        weights.append(moe.gate.linear.weight.detach())
    torch.testing.assert_close(*weights, rtol=0, atol=2e-2)


def test_the_batch_that_is_not_finite_is_found_inside_a_step():
    torch.manual_seed(0)
    x = torch.randn(40, 4)
    x[17] = 3e38  # its logits overflow
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    nn.init.constant_(moe.experts[0].weight, 10.0)
    before = [parameter.clone() for parameter in moe.parameters()]
    options = {"batch_size": 10, "accumulate": 4, "epochs": 1, "validation": 0.0}
    with pytest.raises(TrainingError, match=r"epoch 1, step 1: cross_entropy is not a finite number; .*experts\.0"):
        mb.fit(moe, (x, (x[:, 0] > 0).long()), **options)
    assert all(map(torch.equal, before, moe.parameters()))
