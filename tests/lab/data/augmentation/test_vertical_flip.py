import torch

from moebius.lab.data.augmentation.flip import Flip
from moebius.lab.data.augmentation.vertical_flip import VerticalFlip


def test_upside_down():
    image = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert torch.equal(VerticalFlip(chance=1)(image[None, None])[0, 0], image[[1, 0]])


def test_is_the_flip_of_the_transposed_image():
    images = torch.rand(50, 3, 4, 6)
    torch.manual_seed(0)
    expected = Flip(chance=0.5)(images.mT).mT
    torch.manual_seed(0)
    assert torch.equal(VerticalFlip(chance=0.5)(images), expected)
