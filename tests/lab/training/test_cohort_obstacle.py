import pytest
import torch
from torch import nn

from moebius.core.stack import Stack
from moebius.experts.adapter import Adapter
from moebius.gates.linear import Linear as LinearGate
from moebius.lab.training.cohort_obstacle import CohortTrial, settings_obstacle
from moebius.layers.mixture import Mixture
from moebius.routers.top_k import TopK

CONV = {"kind": "conv", "filters": [4], "hidden": [8]}
FLAT = {"combine": {"kind": "weighted_sum"}}


class Median(nn.Module):
    """A gate without parameters that looks at all rows of a batch."""

    def forward(self, x):
        scores = x.flatten(1)[:, 20:22]
        return scores - scores.median(0).values


class Told(nn.Module):
    """An expert that asks for a value."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 20)

    def forward(self, x):
        return self.linear(x.flatten(1)) * (2 if x.sum().item() > 0 else 1)


def mixture(*parts, gate=None):
    return lambda: Mixture(
        gate or LinearGate(64, 2), [nn.Sequential(nn.Flatten(), nn.Linear(64, 20), *parts) for _ in "ab"]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gate": {"kind": "uniform"}},
        {"gate": {"kind": "domain"}, "router": {"kind": "argmax"}},
        {"gate": CONV, "experts": {**CONV, "count": 3}, **FLAT},
        {
            "experts": [
                {"kind": "linear"},
                {"kind": "mixture", "gate": {"kind": "mlp"}, "experts": {"kind": "linear"}},
            ],
            **FLAT,
        },
        {"router": {"kind": "sparsemax"}},
        {"combine": {"kind": "components"}},
        {"router": {"kind": "top_k", "k": 1}, "combine": {"kind": "components"}},
        {"router": {"kind": "expert_choice"}},
        {"router": {"kind": "switch", "jitter": 0, "capacity": 1.25}},
    ],
)
def test_what_can_train_as_a_cohort(changes, build, small_data):
    data = small_data()
    before = torch.get_rng_state()
    assert CohortTrial(build(data, **changes), data).obstacle is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": {"kind": "gumbel"}}, "draws random numbers while it trains"),
        ({"router": {"kind": "gumbel_softmax"}}, "draws random numbers while it trains"),
        ({"router": {"kind": "noisy_top_k", "k": 1}}, "draws random numbers while it trains"),
        ({"router": {"kind": "top_k", "k": 1, "bias_rate": 0.01}}, "has a router with a state of its own"),
        ({"experts": {"kind": "mlp", "count": 2, "dropout": 0.5}}, "draws random numbers while it trains"),
        (
            {"gate": {"kind": "uniform"}, "experts": {"kind": "vgg", "filters": [[4]], "dropout": 0}},
            "keeps running statistics",
        ),
        (
            {
                "router": {"kind": "argmax"},
                "experts": [
                    {"kind": "linear"},
                    {"kind": "mixture", "gate": {"kind": "linear"}, "experts": {"kind": "linear"}},
                ],
            },
            "gives other values in a cohort than alone",
        ),
    ],
)
def test_what_cannot_train_as_a_cohort(changes, message, build, small_data):
    data = small_data()
    assert (CohortTrial(build(data, **changes), data).obstacle or "").startswith(message)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Mixture(LinearGate(64, 1), [nn.Sequential(mixture()())]),
        lambda: Mixture(LinearGate(64, 2), Stack(list(mixture()().experts)), TopK(1)),
        mixture(gate=Median()),
    ],
)
def test_modules_that_can_train_as_a_cohort(build, small_data):
    assert CohortTrial(build, small_data()).obstacle is None


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Mixture(LinearGate(64, 2), [Adapter(nn.Sequential(nn.Flatten(), nn.Linear(64, 20))) for _ in "ab"]),
            "has networks made before it",
        ),
        (lambda: Mixture(nn.Flatten(), [nn.Identity() for _ in range(64)]), "has nothing to train"),
        (mixture(nn.BatchNorm1d(20)), "keeps running statistics while it trains"),
        (
            lambda: Mixture(LinearGate(64, 2), [Told(), Told()]),
            "cannot be run as one (vmap: It looks like you're calling .item()",
        ),
    ],
)
def test_modules_that_cannot_train_as_a_cohort(build, message, small_data):
    assert (CohortTrial(build, small_data()).obstacle or "").startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf16"}, "computes in bf16"),
        ({"augment": [{"kind": "flip"}]}, "augments images"),
        ({"watch": {"patience": 2}}, "ends, or changes its learning rates"),
        ({"watch": {"plateau": {"patience": 2}}}, "ends, or changes its learning rates"),
        ({"watch": {"measure": "loss", "restart": True}}, ""),
        ({"gate": {"freeze": True}}, ""),
    ],
)
def test_settings(changes, message, settings):
    reason = settings_obstacle(settings(**changes))
    assert (reason is None) == (message == "")
    assert (reason or "").startswith(message)


def test_work_is_that_of_all_experts(build, small_data):
    data = small_data()
    assert CohortTrial(build(data), data).multiply_adds == 64 * (2 + 2 * 20)
    chosen = {"gate": {"kind": "domain"}, "router": {"kind": "argmax"}}
    assert CohortTrial(build(data, **chosen), data).multiply_adds == 64 * 2 * 20


def test_a_cohort_pays_for_small_steps_without_convolutions(build, small_data):
    data = small_data()
    trial = CohortTrial(build(data), data)
    assert trial.slowness(128, "cpu") is None
    assert "134,400,000 multiply-adds in a step" in (trial.slowness(50_000, "cpu") or "")
    # A GPU has more to do in the time that a step takes to get under way.
    assert trial.slowness(50_000, "cuda") is None
    convolving = CohortTrial(build(data, gate=CONV), data)
    assert (convolving.slowness(1, "cpu") or "").startswith("has convolutions")
    assert convolving.slowness(1, "cuda") is None
