import torch

import moebius as mb
from moebius.gates.unet import UNet


def test_it_weighs_experts_at_each_pixel():
    torch.manual_seed(0)
    gate = UNet(channels=1, experts=2, filters=[4])
    experts = [mb.experts.UNet(1, 3, filters=[4]) for _ in range(2)]
    moe, x = mb.layers.PositionMixture(gate, experts, channel_axis=1), torch.rand(2, 1, 6, 5)
    weights = gate(x).softmax(1)
    expected = sum(weights[:, number, None] * expert(x) for number, expert in enumerate(experts))
    torch.testing.assert_close(moe(x), expected)


def test_its_defaults_are_two_resolutions():
    assert UNet(channels=1, experts=2).network.filters == (8, 16)
