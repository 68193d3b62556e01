import pytest
import torch

from moebius.experts.mlp import MLP
from moebius.kit.errors import ArgumentError


def test_worked():
    expert = MLP(features=1, classes=2, hidden=[2])
    first, last = expert.network.linears
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        last.bias.zero_()
    # Hidden relu(x) and relu(−x): their sum is |x| and their difference x.
    assert expert(torch.tensor([[-3.0], [2.0]])).tolist() == [[3.0, -3.0], [2.0, 2.0]]


def test_no_width_is_refused():
    with pytest.raises(ArgumentError, match=r"^hidden: needs at least one width"):
        MLP(features=4, classes=2, hidden=[])
