"""Mixtures with one thing wrong, for the tests of remedies: rows of two classes in regimes, each with its expert."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import moebius as mb

NOISE = 0.05


def rows(count, seed=0, regimes=2):
    """x (T, 6) and classes: column 0 tells the regime, and in regime r the sign of column r + 1 is the class."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    regime = (torch.special.ndtr(x[:, 0]) * regimes).long().clamp(max=regimes - 1)
    y = (x.gather(1, regime.unsqueeze(1) + 1).squeeze(1) > 0).long()
    return x, torch.where(torch.rand(count, generator=generator) < NOISE, 1 - y, y)


def expert(column, scale=1.5):
    """Logits by the sign of a column."""
    layer = mb.experts.Linear(6, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        weight = next(parameter for parameter in layer.parameters() if parameter.ndim == 2)
        weight[1, column], weight[0, column] = scale, -scale
    return layer


def gate(weight, bias):
    """A linear gate that reads column 0: score_e = weight_e · x_0 + bias_e."""
    linear = mb.gates.Linear(6, len(weight))
    with torch.no_grad():
        linear.linear.weight.zero_()
        linear.linear.weight[:, 0] = torch.tensor(weight)
        linear.linear.bias.copy_(torch.tensor(bias))
    return linear


def mixture(of_gate, experts, router=None, combine=None):
    return mb.Mixture(of_gate, experts, router, combine or mb.LogMixture()).eval()


def collapsed(router=None):
    """Everything goes to expert 0."""
    return mixture(gate([0.0, 0.0], [9.0, -9.0]), [expert(1), expert(2)], router)


def inverted(router=None):
    """Each regime goes to the other's expert."""
    return mixture(gate([4.0, -4.0], [0.0, 0.0]), [expert(1), expert(2)], router)


def healthy(router=None):
    """Each regime goes to its expert."""
    return mixture(gate([-300.0, 300.0], [0.0, 0.0]), [expert(1), expert(2)], router)


def redundant():
    """Experts 1 and 2 are the same; expert 3 gets nothing."""
    return mixture(gate([-8.0, 8.0, 8.0, 0.0], [0.0, 0.0, 0.0, -40.0]), [expert(1), expert(2), expert(2), expert(3)])


def overconfident():
    """The right experts, whose logits are six times too large."""
    return mixture(gate([-8.0, 8.0], [0.0, 0.0]), [expert(1, 9.0), expert(2, 9.0)])


def one_short():
    """Two experts for three regimes."""
    return mixture(gate([-8.0, 8.0], [0.0, 0.0]), [expert(1), expert(2)])


class Network(nn.Module):
    """A network with a mixture inside, whose head changes nothing."""

    def __init__(self, moe):
        super().__init__()
        self.body, self.moe, self.head = nn.Identity(), moe, nn.Linear(2, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(2))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.moe(self.body(x)))


@pytest.fixture(scope="session")
def mixtures():
    """The functions above by name."""
    made = (rows, expert, gate, mixture, collapsed, inverted, healthy, redundant, overconfident, one_short, Network)
    return SimpleNamespace(**{each.__name__: each for each in made})
