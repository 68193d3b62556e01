"""Translations."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, check_fraction, draw_uniform


class Shift(Augmentation):
    """Moves each image horizontally and vertically; pixels from outside of it repeat the nearest pixel of the border.

    x'[v, u] = x[v − b, u − a],  a ~ U(−f·width, f·width),  b ~ U(−f·height, f·height)

    The offsets are fractions of pixels, and values are interpolated bilinearly, as in Keras' ImageDataGenerator with
    `width_shift_range=f, height_shift_range=f, fill_mode="nearest"`. `crop` shifts by whole pixels.

    Arguments:
        fraction: f, the largest shift as a share of the image's width and height, 0 … 1.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a fraction outside 0 … 1.

    Example:
        >>> Shift(fraction=0.1)(torch.full((1, 1, 2, 2), 0.5))
        tensor([[[[0.5000, 0.5000],
                  [0.5000, 0.5000]]]])

    Reference: study 3; Keras' ImageDataGenerator.
    """

    def __init__(self, fraction: float | int = 0.1):
        self.fraction = check_fraction("fraction", fraction)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw an offset for each row and shift it."""
        from kornia.geometry.transform import translate

        height, width = (self.fraction * size for size in images.shape[-2:])
        offset = torch.cat([draw_uniform(images, -width, width), draw_uniform(images, -height, height)], 1)
        return translate(images, offset, padding_mode="border")
