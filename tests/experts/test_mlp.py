import pytest
import torch

from moebius.errors import ArgumentError
from moebius.experts.mlp import MLP


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


def test_three_hidden_layers_stack_too():
    experts, x = [MLP(features=6, classes=3, hidden=[5, 4, 3], activation="tanh") for _ in range(3)], torch.rand(7, 6)
    torch.testing.assert_close(MLP.stacked(experts, x), torch.stack([expert(x) for expert in experts], 1))


def test_equal_shapes_with_unlike_activations_are_not_taken_for_equal():
    experts = [MLP(features=6, classes=3, activation=name) for name in ("relu", "tanh")]
    x = torch.randn(7, 6)
    torch.testing.assert_close(MLP.stacked(experts, x), torch.stack([expert(x) for expert in experts], 1))


def test_no_width_is_refused():
    with pytest.raises(ArgumentError, match=r"^hidden: needs at least one width"):
        MLP(features=4, classes=2, hidden=[])


@pytest.mark.parametrize("training", [True, False])
def test_stacked_draws_as_the_loop_does(training):
    experts, x = [MLP(6, 3, [50], dropout=0.5).train(training) for _ in range(3)], torch.rand(7, 6)
    torch.manual_seed(0)
    fast = MLP.stacked(experts, x)
    torch.manual_seed(0)
    torch.testing.assert_close(fast, torch.stack([expert(x) for expert in experts], 1))
    assert torch.equal(fast, MLP.stacked(experts, x)) == (not training)


def test_one_expert_that_drops_is_enough_to_loop():
    experts, x = [MLP(6, 3, [50]), MLP(6, 3, [50], dropout=0.5)], torch.rand(7, 6)
    found = MLP.stacked(experts, x)
    torch.testing.assert_close(found[:, 0], experts[0](x))
    assert not torch.allclose(found[:, 1], experts[1].eval()(x))
