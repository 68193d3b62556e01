"""A loss in a model with several mixtures is that of each call, added up."""

import pytest
import torch
from torch import nn

from moebius.core.recording import record
from moebius.kit.registry import find
from moebius.layers.mixture import Mixture
from moebius.routers.soft import Soft


class Model(nn.Module):
    """Two mixtures, the first of which is called twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = Mixture(nn.Linear(3, 2), [nn.Linear(3, 3) for _ in range(2)])
        self.second = Mixture(nn.Linear(3, 4), [nn.Linear(3, 3) for _ in range(4)])

    def forward(self, x):
        return self.second(self.first(self.first(x)))


@pytest.mark.parametrize("kind", ["batch_entropy", "sample_variance", "importance", "switch_balance", "z_loss"])
def test_each_call_gives_what_it_gives_alone(kind):
    loss, model, x = find("losses", kind), Model(), torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    with record(model) as log:
        model(x)
    assert {path: len(calls) for path, calls in log.items()} == {"first": 2, "second": 1}
    together = torch.stack([loss(routing) for calls in log.values() for routing in calls]).sum()
    between = model.first(x)
    seen = [(model.first, x), (model.first, between), (model.second, model.first(between))]
    alone = [loss(Soft()(mixture.gate(rows))) for mixture, rows in seen]
    torch.testing.assert_close(together, torch.stack(alone).sum())

    parameters = list(model.parameters())
    of_all = torch.autograd.grad(together, parameters, allow_unused=True)
    of_each = [torch.autograd.grad(one, parameters, allow_unused=True, retain_graph=True) for one in alone]
    for gradient, *parts in zip(of_all, *of_each, strict=True):
        known = [part for part in parts if part is not None]
        assert (gradient is None) == (not known)
        if known:
            torch.testing.assert_close(gradient, torch.stack(known).sum(0))
