"""Shifted images."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, share, uniform


class Shift(Augmentation):
    """Moves each image left or right and up or down; what comes in repeats the nearest pixel of the border.

    x'[v, u] = x[v − b, u − a],  a ~ U(−f·width, f·width),  b ~ U(−f·height, f·height)

    The offsets are no whole numbers: values are interpolated bilinearly, as in Keras' ImageDataGenerator with
    `width_shift_range=f, height_shift_range=f, fill_mode="nearest"`. For whole pixels take `crop`.

    Arguments:
        fraction: f, the largest shift as a share of the size, 0 … 1.

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
        self.fraction = share("fraction", fraction)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw an offset for each row and shift it."""
        from kornia.geometry.transform import translate

        height, width = (self.fraction * size for size in images.shape[-2:])
        offset = torch.cat([uniform(images, -width, width), uniform(images, -height, height)], 1)
        return translate(images, offset, padding_mode="border")
