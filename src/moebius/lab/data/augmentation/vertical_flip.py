"""Vertical flips."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, check_fraction, draw_mask


class VerticalFlip(Augmentation):
    """Mirrors some of the images, so that top and bottom change places.

    x'[v, u] = x[height − 1 − v, u] with probability p, else x

    Arguments:
        chance: p, probability that an image is mirrored, 0 … 1.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a chance outside 0 … 1.

    Example:
        >>> VerticalFlip(chance=1)(torch.tensor([[[[0.0], [0.5], [1.0]]]])).flatten()
        tensor([1.0000, 0.5000, 0.0000])

    Reference: Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks, 4.1,
    for horizontal flips.
    """

    def __init__(self, chance: float | int = 0.5):
        self.chance = check_fraction("chance", chance)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are mirrored."""
        from kornia.geometry.transform import vflip

        return torch.where(draw_mask(images, self.chance), vflip(images), images)
