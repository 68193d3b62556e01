import pytest
import torch

from moebius.networks import Dense


@pytest.mark.parametrize("hidden", [[], [5], [5, 4]])
def test_dropout_follows_each_activation_while_training_and_is_nothing_in_eval(hidden):
    network, x = Dense(3, hidden, 2, "tanh", dropout=0.5), torch.randn(7, 3)
    torch.manual_seed(1)
    outputs = network(x)
    torch.manual_seed(1)
    values = x
    for layer in network.linears[:-1]:
        values = torch.nn.functional.dropout(layer(values).tanh(), 0.5)
    assert torch.equal(outputs, network.linears[-1](values))
    plain = Dense(3, hidden, 2, "tanh")
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(x), plain(x))
