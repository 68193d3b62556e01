import pytest
import torch
from torch import nn

from moebius.experts.adapter import Adapter
from moebius.gates.linear import Linear as LinearGate
from moebius.lab.training.cohort_obstacle import RowWork, cohort_obstacle
from moebius.layers.mixture import Mixture

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
    ],
)
def test_what_can_train_as_a_cohort(changes, build, settings, small_data):
    data = small_data()
    before = torch.get_rng_state()
    assert cohort_obstacle(build(data, **changes), settings(), data) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": {"kind": "gumbel"}}, "has a router that draws random numbers"),
        ({"router": {"kind": "noisy_top_k", "k": 1}}, "has a router that draws random numbers"),
        ({"router": {"kind": "expert_choice"}}, "has a router that looks at all rows of a batch together"),
        ({"router": {"kind": "switch", "jitter": 0, "capacity": 1.25}}, "has a router that looks at all rows"),
        ({"router": {"kind": "top_k", "k": 1, "bias_rate": 0.01}}, "has a router with parameters or buffers"),
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
            "sends rows to mixtures inside it",
        ),
    ],
)
def test_what_cannot_train_as_a_cohort(changes, message, build, settings, small_data):
    data = small_data()
    assert (cohort_obstacle(build(data, **changes), settings(), data) or "").startswith(message)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Mixture(LinearGate(64, 2), [Adapter(nn.Linear(64, 20)), nn.Linear(64, 20)]),
            "has networks made before it",
        ),
        (lambda: Mixture(nn.Flatten(), [nn.Identity() for _ in range(64)]), "has nothing to train"),
        (lambda: Mixture(LinearGate(64, 1), [nn.Sequential(mixture()())]), "has mixtures inside other modules"),
        (mixture(nn.BatchNorm1d(20)), "keeps running statistics while it trains"),
        (mixture(gate=Median()), "gives other values in a cohort than alone"),
        (
            lambda: Mixture(LinearGate(64, 2), [Told(), Told()]),
            "cannot be run as one (vmap: It looks like you're calling .item()",
        ),
    ],
)
def test_modules_that_cannot_train_as_a_cohort(build, message, settings, small_data):
    assert (cohort_obstacle(build, settings(), small_data()) or "").startswith(message)


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
def test_settings(changes, message, build, settings, small_data):
    data = small_data()
    reason = cohort_obstacle(build(data), settings(**changes), data)
    assert (reason is None) == (message == "")
    assert (reason or "").startswith(message)


def test_work_is_that_of_all_experts(build, small_data):
    data = small_data()
    assert RowWork.of(build(data), data) == RowWork(64 * (2 + 2 * 20), False)
    chosen = {"gate": {"kind": "domain"}, "router": {"kind": "argmax"}}
    assert RowWork.of(build(data, **chosen), data) == RowWork(64 * 2 * 20, False)
    assert RowWork.of(build(data, gate=CONV), data).convolves


def test_cohorts_pays_for_small_steps():
    assert RowWork(43_008, False).obstacle(128, "cpu") is None
    assert "10,243,167,232 multiply-adds in a step" in (RowWork(80_024_744, False).obstacle(128, "cpu") or "")
    # A GPU has more to do in the time that a step takes to get under way.
    assert RowWork(1_000_000, False).obstacle(128, "cpu") is not None
    assert RowWork(1_000_000, True).obstacle(128, "cuda") is None
    assert (RowWork(1, True).obstacle(1, "cpu") or "").startswith("has convolutions")
