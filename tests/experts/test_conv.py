import pytest
import torch
from torch import nn

from moebius.experts.conv import Conv
from moebius.kit.errors import ArgumentError


def test_worked():
    expert = Conv(channels=1, size=2, classes=1, filters=[2], hidden=[])
    with torch.no_grad():
        convolution, last = expert.network.convolutions[0], expert.network.dense.linears[0]
        convolution.weight.zero_()
        convolution.weight[0, 0, 1, 1], convolution.weight[1, 0, 1, 1] = 1.0, -1.0
        convolution.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        last.bias.zero_()
    # The largest pixel is 4 and the largest negated one −1, which relu cuts to 0; then 3 and 2.
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[-2.0, 3.0], [-1.0, 0.0]]]])
    assert expert(x).tolist() == [[4.0], [23.0]]


@pytest.mark.parametrize(("size", "dtype"), [(8, torch.float64), (11, torch.float64), (8, torch.float32)])
def test_relu_after_pooling_is_the_network_of_the_study(size, dtype):
    torch.manual_seed(0)
    expert = Conv(channels=3, size=size, classes=5, filters=[6, 7], hidden=[8]).to(dtype)
    x = torch.randn(9, 3, size, size, dtype=dtype)
    first, second = expert.network.convolutions
    dense, last = expert.network.dense.linears
    blocks = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2))

    def run(outputs):
        return outputs, torch.autograd.grad(outputs.square().sum(), list(expert.parameters()))

    ours, our_gradients = run(expert(x))
    theirs, their_gradients = run(last(dense(blocks(x).permute(0, 2, 3, 1).flatten(1)).relu()))
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_the_defaults_are_those_of_the_study():
    network = Conv(channels=1, size=32, classes=20).network
    assert [layer.out_channels for layer in network.convolutions] == [128, 128]
    assert [(layer.in_features, layer.out_features) for layer in network.dense.linears] == [(128 * 64, 128), (128, 20)]


def test_channels_last_gives_the_same_outputs():
    torch.manual_seed(0)
    expert, x = Conv(channels=3, size=8, classes=5, filters=[4, 4]).double(), torch.rand(5, 3, 8, 8).double()
    expected = expert(x)
    again = expert.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(again, expected)


def test_an_image_too_small_for_the_blocks_is_refused_with_what_fits():
    with pytest.raises(ArgumentError, match=r"^filters: an image 4 pixels wide can be halved 2 times") as caught:
        Conv(channels=1, size=4, classes=2, filters=[8, 8, 8])
    assert caught.value.fix == "filters: [8, 8]"
