import pytest
import torch

from moebius.gates.mlp import MLP
from moebius.kit.errors import ArgumentError


def test_worked():
    gate = MLP(features=2, experts=2, hidden=[2])
    first, last = gate.network.linears
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
        first.bias.copy_(torch.tensor([0.0, -1.0]))
        last.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        last.bias.copy_(torch.tensor([1.0, 0.0]))
    # Hidden: relu(1 − 3) = 0 and relu(3 − 1) = 2.
    assert gate(torch.tensor([[1.0, 3.0]])).tolist() == [[1.0, 6.0]]


def test_without_activation_it_reduces_to_a_linear_gate():
    gate = MLP(features=4, experts=3, hidden=[5, 6], activation="none").double()
    zero, x, y = gate(torch.zeros(1, 4).double()), torch.rand(7, 4).double(), torch.rand(7, 4).double()
    torch.testing.assert_close(gate(x + y) - zero, (gate(x) - zero) + (gate(y) - zero))


def test_the_defaults_are_those_of_the_studies():
    widths = [(layer.in_features, layer.out_features) for layer in MLP(features=1024, experts=2).network.linears]
    assert widths == [(1024, 64), (64, 2)]


def test_activations_differ():
    x, scores = torch.linspace(-2, 2, 12).view(3, 4), []
    for name in ("none", "relu", "elu", "tanh", "gelu", "silu"):
        torch.manual_seed(0)
        scores.append(MLP(features=4, experts=2, hidden=[8], activation=name)(x))
    assert all(not torch.allclose(a, b) for i, a in enumerate(scores) for b in scores[:i])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": []}, r"^hidden: needs at least one width, got \[\]"),
        ({"hidden": [8, 0]}, r"^hidden: needs whole numbers of at least 1, got \[8, 0\]"),
        ({"activation": "rely"}, r"^activation: needs one of none, relu"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        MLP(features=4, experts=2, **arguments)
    assert caught.value.fix


def test_dropout_is_drawn_while_training_alone():
    gate, x = MLP(features=4, experts=3, hidden=[512], dropout=0.5), torch.rand(7, 4)
    assert not torch.equal(gate(x), gate(x))
    assert gate.dropout == 0.5
    gate.eval()
    plain = MLP(features=4, experts=3, hidden=[512])
    plain.load_state_dict(gate.state_dict())
    assert torch.equal(gate(x), plain(x))
    with pytest.raises(ArgumentError, match=r"^dropout: needs a number from 0 to below 1, got 1"):
        MLP(features=4, experts=3, dropout=1)
