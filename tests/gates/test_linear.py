import pytest
import torch

from moebius.gates.linear import Linear
from moebius.kit.errors import ArgumentError


def filled(weight, bias):
    gate = Linear(features=2, experts=2)
    gate.load_state_dict({"linear.weight": torch.tensor(weight), "linear.bias": torch.tensor(bias)})
    return gate


def test_worked():
    gate = filled([[1.0, 2.0], [-1.0, 0.5]], [0.0, 3.0])
    assert gate(torch.tensor([[1.0, 1.0], [2.0, -4.0]])).tolist() == [[3.0, 2.5], [-6.0, -1.0]]


def test_tokens_keep_their_batch_axes():
    gate, x = Linear(features=4, experts=3), torch.rand(2, 5, 4)
    torch.testing.assert_close(gate(x)[1, 2], gate(x[1, 2]))


def test_without_bias_zero_in_gives_zero_out():
    assert Linear(features=4, experts=3, bias=False)(torch.zeros(1, 4)).tolist() == [[0.0, 0.0, 0.0]]


def test_an_input_of_another_width_is_refused_with_its_shape():
    with pytest.raises(ArgumentError, match=r"shape \(2, 1, 8, 8\)"):
        Linear(features=100, experts=2)(torch.zeros(2, 1, 8, 8))
