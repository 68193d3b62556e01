import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.greyscale import Greyscale


def test_the_weights_are_those_of_itu_r_601():
    red, green, blue = torch.eye(3).view(3, 3, 1, 1)
    grey = Greyscale(chance=1)(torch.stack([red, green, blue]))
    expected = torch.tensor([0.299, 0.587, 0.114])[:, None].expand(3, 3)
    torch.testing.assert_close(grey.flatten(1), expected)


def test_grey_images_are_not_changed():
    grey = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(Greyscale(chance=1)(grey.expand(-1, 3, -1, -1)), grey.expand(-1, 3, -1, -1))
    assert torch.equal(Greyscale(chance=1)(grey), grey)


def test_the_share_of_converted_rows_is_the_chance():
    torch.manual_seed(0)
    images = torch.rand(2000, 3, 2, 2)
    is_unchanged = (Greyscale(chance=0.25)(images) == images).flatten(1).all(1)
    assert abs(is_unchanged.double().mean() - 0.75) < 0.04


def test_two_channels_are_refused():
    with pytest.raises(ArgumentError, match="images: need 1 channel"):
        Greyscale()(torch.rand(2, 2, 4, 4))
