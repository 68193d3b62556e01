import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.flip import Flip


def test_a_mirror_image():
    image = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    expected = torch.tensor([[0.3, 0.2, 0.1], [0.6, 0.5, 0.4]])
    assert torch.equal(Flip(chance=1)(image[None, None])[0, 0], expected)


def test_two_flips_restore_the_image():
    images = torch.rand(5, 3, 6, 7)
    assert torch.equal(Flip(chance=1)(Flip(chance=1)(images)), images)


def test_the_share_of_mirrored_rows_is_the_chance():
    torch.manual_seed(0)
    images = torch.rand(4000, 1, 2, 3)
    changed = Flip(chance=0.25)(images)
    is_mirrored = (changed == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(changed[~is_mirrored], images[~is_mirrored])
    assert abs(is_mirrored.double().mean() - 0.25) < 0.03


@pytest.mark.parametrize("chance", [-0.1, 1.1])
def test_a_chance_outside_0_and_1_is_refused(chance):
    with pytest.raises(ArgumentError, match="chance: needs a number"):
        Flip(chance=chance)
