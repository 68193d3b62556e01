"""Conversion to grey."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, check_fraction, draw_mask, is_grey


class Greyscale(Augmentation):
    """Converts some of the images to grey; they keep three channels, which become equal.

    x'_c = 0.299 red + 0.587 green + 0.114 blue (ITU-R 601) with probability p, else x

    Images with one channel are not changed.

    Arguments:
        chance: p, probability that an image is converted, 0 … 1.

    Shapes: images (T, channels, height, width) with 1 or 3 channels, values in [0, 1] → the same.

    Raises:
        ArgumentError: a chance outside 0 … 1. A call raises it for images with neither 1 nor 3 channels.

    Example:
        >>> Greyscale(chance=1)(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.2990, 0.2990, 0.2990])

    Reference: Chen, Kornblith, Norouzi, Hinton 2020, A Simple Framework for Contrastive Learning of Visual
    Representations, appendix A.
    """

    def __init__(self, chance: float | int = 0.2):
        self.chance = check_fraction("chance", chance)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are converted."""
        from kornia.color import rgb_to_grayscale

        is_converted = draw_mask(images, self.chance)
        return images if is_grey(images) else torch.where(is_converted, rgb_to_grayscale(images), images)
