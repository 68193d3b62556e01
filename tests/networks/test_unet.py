import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moebius.kit.errors import ArgumentError
from moebius.networks import UNet


def test_worked():
    network = UNet(channels=1, outputs=1, filters=[1, 1], activation="none")
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.zero_()
                part.bias.zero_()
        network.down[0].weight[0, 0, 1, 1] = 2.0
        network.down[1].weight[0, 0, 1, 1] = 10.0
        network.up[0].weight[0, :, 1, 1] = 1.0
        network.last.weight.fill_(1.0)
    # Doubled pixels, and ten times the largest of each 2×2 of them.
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert network(x).tolist() == [[[[82.0, 84.0], [86.0, 88.0]]]]


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_it_is_its_parts_written_out(size):
    torch.manual_seed(0)
    network, x = UNet(3, 4, (5, 6, 7), "relu").double(), torch.randn(2, 3, *size, dtype=torch.float64)
    fine = network.down[0](x).relu()
    middle = network.down[1](F.max_pool2d(fine, 2)).relu()
    coarse = network.down[2](F.max_pool2d(middle, 2)).relu()

    def enlarged(values, like):
        rows = torch.arange(like.shape[2]) * values.shape[2] // like.shape[2]
        columns = torch.arange(like.shape[3]) * values.shape[3] // like.shape[3]
        return values[:, :, rows][:, :, :, columns]

    middle = network.up[1](torch.cat([middle, enlarged(coarse, middle)], 1)).relu()
    fine = network.up[0](torch.cat([fine, enlarged(middle, fine)], 1)).relu()
    y, expected = network(x), network.last(fine)
    torch.testing.assert_close(y, expected)
    gradients, other = (torch.autograd.grad(out.square().sum(), list(network.parameters())) for out in (y, expected))
    torch.testing.assert_close(gradients, other)


def test_one_resolution_sees_the_neighbours_alone():
    network, x = UNet(1, 2, (4,), "elu"), torch.randn(1, 1, 6, 6)
    moved = x.clone()
    moved[0, 0, 0, 0] += 1
    changed = (network(moved) != network(x)).any(1)[0]
    assert changed.nonzero().amax(0).tolist() == [1, 1]
    assert not hasattr(network.up, "0")


@pytest.mark.parametrize(
    ("shape", "message", "fix"),
    [
        ((2, 3, 8, 8), r"^x: this network was built for images of 1 channels", "channels=3"),
        ((2, 1, 3, 8), r"^filters: needs images of at least 4×4 pixels for 3 resolutions", "filters=[2, 2]"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message, fix):
    with pytest.raises(ArgumentError, match=message) as caught:
        UNet(1, 2, (2, 2, 2), "relu")(torch.zeros(shape))
    assert caught.value.fix == fix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"filters": []}, "^filters: "), ({"activation": "gelu"}, "^activation: "), ({"channels": 0}, "^channels: ")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        UNet(**{"channels": 1, "outputs": 2, "filters": (2,), "activation": "relu", **arguments})
