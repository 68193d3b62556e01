import pytest
import torch
from torch import nn

from moebius.gates.conv import Conv
from moebius.kit.errors import ArgumentError


def test_worked():
    gate = Conv(channels=1, size=2, experts=2, filters=[1], hidden=[])
    with torch.no_grad():
        convolution, last = gate.network.convolutions[0], gate.network.dense.linears[0]
        convolution.weight.copy_(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
        convolution.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        last.bias.copy_(torch.tensor([0.0, 1.0]))
    # Each pixel plus its right neighbour: [[-3, -2], [-7, -4]]; the largest is −2, and no activation cuts it.
    assert gate(torch.tensor([[[[-1.0, -2.0], [-3.0, -4.0]]]])).tolist() == [[-2.0, 5.0]]


def test_it_is_the_network_of_the_study():
    torch.manual_seed(0)
    gate, x = Conv(channels=3, size=32, experts=2), torch.rand(4, 3, 32, 32)
    (first, second), (dense, last) = gate.network.convolutions, gate.network.dense.linears
    assert [tuple(layer.weight.shape) for layer in (first, second, dense, last)] == [
        (64, 3, 3, 3),
        (64, 64, 3, 3),
        (64, 64 * 8 * 8),
        (2, 64),
    ]
    written_out = nn.Sequential(first, nn.MaxPool2d(2), second, nn.MaxPool2d(2))
    flat = written_out(x).permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(gate(x), last(dense(flat).relu()))


def test_relu_in_the_blocks_changes_the_scores():
    results = []
    for name in ("none", "relu"):
        torch.manual_seed(0)
        results.append(
            Conv(channels=1, size=8, experts=2, filters=[4], hidden=[4], activation=name)(-torch.ones(2, 1, 8, 8))
        )
    assert not torch.allclose(*results)


def test_channels_last_gives_the_same_scores():
    torch.manual_seed(0)
    gate, x = Conv(channels=3, size=8, experts=2, filters=[4, 4], hidden=[4]).double(), torch.rand(5, 3, 8, 8).double()
    expected = gate(x)
    again = gate.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": []}, r"^filters: needs at least one width"),
        ({"filters": [4, 4, 4, 4]}, r"^filters: an image 8 pixels wide can be halved 3 times"),
        ({"hidden": [0]}, r"^hidden: "),
        ({"activation": "gelu"}, r"^activation: needs one of none, relu, elu, tanh"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Conv(channels=1, size=8, experts=2, **arguments)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 8, 9), (2, 1, 16, 16)])
def test_images_of_another_shape_are_refused_with_theirs(shape):
    with pytest.raises(ArgumentError, match=r"images of shape \(1, 8, 8\)") as caught:
        Conv(channels=1, size=8, experts=2)(torch.zeros(shape))
    assert str(shape) in str(caught.value)
