import torch

import moebius as mb
from moebius.experts.unet import UNet


def test_its_outputs_are_those_of_the_network():
    expert, x = UNet(channels=2, classes=3), torch.rand(2, 2, 6, 5)
    assert torch.equal(expert(x), expert.network(x))
    assert (expert.network.filters, tuple(expert(x).shape)) == ((16, 32), (2, 3, 6, 5))


def test_one_gate_may_weigh_whole_images():
    experts = [UNet(1, 3, filters=[2]) for _ in range(2)]
    moe, x = mb.Mixture(mb.gates.Conv(1, 4, 2, [2], [3]), experts), torch.rand(2, 1, 4, 4)
    weights = moe.gate(x).softmax(1)
    expected = sum(weights[:, number, None, None, None] * expert(x) for number, expert in enumerate(experts))
    torch.testing.assert_close(moe(x), expected)
