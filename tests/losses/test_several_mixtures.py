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
    total = torch.stack([loss(routing) for calls in log.values() for routing in calls]).sum()
    hidden = model.first(x)
    calls = [(model.first, x), (model.first, hidden), (model.second, model.first(hidden))]
    separate = [loss(Soft()(mixture.gate(rows))) for mixture, rows in calls]
    torch.testing.assert_close(total, torch.stack(separate).sum())

    parameters = list(model.parameters())
    gradients_of_all = torch.autograd.grad(total, parameters, allow_unused=True)
    gradients_of_each = [
        torch.autograd.grad(loss_value, parameters, allow_unused=True, retain_graph=True) for loss_value in separate
    ]
    for gradient, *parts in zip(gradients_of_all, *gradients_of_each, strict=True):
        present = [gradient_of_call for gradient_of_call in parts if gradient_of_call is not None]
        assert (gradient is None) == (not present)
        if present:
            torch.testing.assert_close(gradient, torch.stack(present).sum(0))
