import pytest
import torch
from torch import nn

import moebius as mb
from moebius.gates.conv import Conv
from moebius.gates.linear import Linear
from moebius.gates.standardised import Standardised
from moebius.kit.errors import ArgumentError


def conv(**changes):
    return Conv(channels=1, size=8, experts=2, filters=[4], hidden=[4], **changes)


def test_worked():
    inner = Linear(features=2, experts=2)
    with torch.no_grad():
        inner.linear.weight.copy_(torch.eye(2))
        inner.linear.bias.zero_()
    gate, x = Standardised(inner, features=2), torch.tensor([[0.0, 10.0], [4.0, 50.0]])
    torch.testing.assert_close(gate(x), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4, rtol=0)
    # Running averages begin at mean 0, variance 1, and take a tenth of the batch's mean (2, 30), variance (8, 800).
    torch.testing.assert_close(gate.norm.running_mean, torch.tensor([0.2, 3.0]))
    torch.testing.assert_close(gate.norm.running_var, torch.tensor([0.9 + 0.8, 0.9 + 80.0]))
    expected = (x - torch.tensor([0.2, 3.0])) / (torch.tensor([1.7, 80.9]) + 1e-5).sqrt()
    torch.testing.assert_close(gate.eval()(x), expected)


def test_the_scale_of_the_data_does_not_reach_the_scores():
    torch.manual_seed(0)
    gate, images = Standardised(conv(), channels=1), torch.rand(16, 1, 8, 8)
    plain = gate.gate
    torch.testing.assert_close(gate(images * 255), gate(images), rtol=1e-3, atol=1e-3)
    # Without it the gate decides before it has learned anything, and its softmax has no gradient.
    raw, standard = plain(images * 255).softmax(1), gate(images * 255).softmax(1)
    assert raw.amax(1).median() > 0.99
    assert standard.amax(1).median() < 0.7


def test_channels_are_standardised_each_by_itself():
    x = torch.rand(8, 3, 4, 4) * torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1)
    seen = []
    inner = nn.Module()
    inner.forward = lambda rows: seen.append(rows) or rows.mean((2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    Standardised(inner, channels=3)(x)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].var((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)


def test_a_single_row_trains_and_rows_may_have_leading_axes():
    gate = Standardised(Linear(features=3, experts=2), features=3)
    gate(torch.rand(1, 3)).sum().backward()
    assert gate.gate.linear.weight.grad is not None
    tokens = torch.rand(2, 5, 3)
    gate.eval()
    torch.testing.assert_close(gate(tokens).flatten(0, 1), gate(tokens.flatten(0, 1)))


def test_it_has_no_parameters_of_its_own_and_is_saved(tmp_path):
    gate = Standardised(conv(), channels=1)
    assert len(list(gate.parameters())) == len(list(gate.gate.parameters()))
    experts = [mb.experts.Conv(channels=1, size=8, classes=3, filters=[4], hidden=[4]) for _ in range(2)]
    moe = mb.Mixture(gate, experts, router=mb.routers.Soft())
    images = torch.rand(16, 1, 8, 8) * 255
    moe(images)
    mb.save(moe.eval(), tmp_path / "mixture.safetensors")
    torch.testing.assert_close(mb.load(tmp_path / "mixture.safetensors").eval()(images), moe(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    "keywords", [{}, {"features": 0}, {"channels": 1, "momentum": 0}, {"channels": 1, "momentum": 2}]
)
def test_refused(keywords):
    with pytest.raises(ArgumentError):
        Standardised(conv(), **keywords)
