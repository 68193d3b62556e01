import pytest
import torch
from torch.nn import functional as F

from moebius.experts.ffn import FFN
from moebius.kit.errors import ArgumentError

ACTIVATIONS = ("gelu", "relu2", "swiglu", "geglu")


def test_worked_relu2():
    expert = FFN(features=1, hidden=2, activation="relu2")
    with torch.no_grad():
        expert.inner.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        expert.inner.bias.copy_(torch.tensor([1.0, 0.0]))
        expert.outer.weight.copy_(torch.tensor([[1.0, 10.0]]))
        expert.outer.bias.copy_(torch.tensor([0.5]))
    # x = 2: relu(3)² = 9 and relu(−2)² = 0; x = −3: relu(−2)² = 0 and relu(3)² = 9.
    assert expert(torch.tensor([[2.0], [-3.0]])).tolist() == [[9.5], [90.5]]


def test_worked_gelu_is_the_exact_one():
    expert = FFN(features=1, hidden=1, bias=False)
    with torch.no_grad():
        expert.inner.weight.fill_(1.0)
        expert.outer.weight.fill_(1.0)
    # Φ(1) = 0.841345; the tanh form would give 0.841192.
    assert expert(torch.ones(1, 1)).item() == pytest.approx(0.8413447, abs=1e-6)


@pytest.mark.parametrize(("name", "inner"), [("swiglu", F.silu), ("geglu", F.gelu)])
def test_gated_ones_multiply_the_activated_half_with_the_other(name, inner):
    expert, x = FFN(features=4, hidden=6, activation=name), torch.randn(5, 4)
    assert expert.inner.out_features == 12
    gate, up = x @ expert.inner.weight[:6].T, x @ expert.inner.weight[6:].T
    expected = expert.outer(inner(gate + expert.inner.bias[:6]) * (up + expert.inner.bias[6:]))
    torch.testing.assert_close(expert(x), expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_without_bias_zero_stays_zero(name):
    expert = FFN(features=4, hidden=6, activation=name, bias=False)
    assert expert(torch.zeros(1, 4)).tolist() == [[0.0] * 4]
    assert len(list(expert.parameters())) == 2


def test_tokens_keep_their_batch_axes():
    assert FFN(features=4, hidden=6)(torch.randn(2, 3, 4)).shape == (2, 3, 4)


def test_an_unknown_activation_is_refused_with_the_known():
    with pytest.raises(ArgumentError, match=r"^activation: needs one of gelu, relu2, swiglu, geglu, got 'relu'"):
        FFN(features=4, hidden=6, activation="relu")
