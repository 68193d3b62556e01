"""Networks and rows of two regimes: each specialist is right in one, and a generalist is fair in both."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.lab.remedies import _fitting


@pytest.fixture
def short(monkeypatch):
    """Gates are trained for a moment."""
    monkeypatch.setattr(_fitting, "EPOCH_STEPS", 10)
    monkeypatch.setattr(_fitting, "EPOCHS", 6)


def linear(weights, bias=0.0):
    """A network of two classes: logits ∓ (w·x + b)."""
    network = nn.Linear(len(weights), 2)
    with torch.no_grad():
        row = torch.tensor(weights)
        network.weight.copy_(torch.stack([-row, row]))
        network.bias.copy_(torch.tensor([-bias, bias]))
    return network


@pytest.fixture
def regimes():
    """(networks, rows): the first network is right where x₂ > 0, the second one where x₂ < 0."""

    def make(count=600, seed=0):
        x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
        y = torch.where(x[:, 2] > 0, x[:, 0] > 0, x[:, 1] > 0).long()
        return {"first": linear([3.0, 0.0, 0.0]), "second": linear([0.0, 3.0, 0.0])}, (x, y)

    return make


@pytest.fixture
def noisy():
    """(networks, rows): each network sees the same signal with a noise of its own, so that their mean is better."""

    def make(count=800, seed=0, networks=3):
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(0, 2, (count,), generator=generator)
        x = (2 * y - 1).unsqueeze(1) + 2 * torch.randn(count, networks, generator=generator)
        ones = torch.eye(networks).tolist()
        return {f"n{number}": linear(ones[number]) for number in range(networks)}, (x, y)

    return make


@pytest.fixture(scope="session")
def digits():
    """Three unlike networks, trained on 500 digits; 600 rows to compose on, and the rest to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(bunch.images / 16).float().unsqueeze(1)[order]
    y = torch.tensor(bunch.target).long()[order]
    torch.manual_seed(0)
    networks = {
        "linear": mb.experts.Linear(64, 10),
        "mlp": mb.experts.MLP(64, 10, hidden=[32]),
        "conv": mb.experts.Conv(1, 8, 10, filters=[6], hidden=[]),
    }
    for network in networks.values():
        moe = mb.Mixture(mb.gates.Uniform(1), [network])
        mb.fit(moe, (x[:500], y[:500]), epochs=6, lr=0.005, batch_size=32, progress=False)
    return networks, (x[500:1100], y[500:1100]), (x[1100:], y[1100:])
