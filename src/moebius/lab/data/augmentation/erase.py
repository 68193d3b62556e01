"""Random erasing of a rectangle."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import (
    Augmentation,
    check_fraction,
    check_interval,
    draw_mask,
    draw_uniform,
)

# The paper's r₁: the smallest ratio of height to width; the largest is 1 / r₁.
SMALLEST_RATIO = 0.3


class Erase(Augmentation):
    """Fills a random rectangle of some of the images with one value.

    area ~ U(low, high) of the image's area, ln(height / width) ~ U(ln 0.3, −ln 0.3), position uniform

    Sides are rounded to whole pixels and limited to 1 … the image's side; the paper draws again where a rectangle does
    not fit. The ratio is drawn on a log scale, so that tall rectangles are as frequent as wide ones; the paper draws it
    linearly.

    Arguments:
        chance: probability that a rectangle of an image is erased, 0 … 1.
        low: the smallest area of a rectangle, as a share of the image's, 0 … 1.
        high: the largest area, as a share of the image's, `low` … 1.
        value: value that fills the rectangle, 0 (black) … 1 (white); the paper fills it with noise.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a number outside 0 … 1, or `low` above `high`.

    Example:
        >>> Erase(chance=1, low=0, high=0)(torch.ones(1, 1, 3, 3)).sum()
        tensor(8.)

    Reference: Zhong, Zheng, Kang, Li, Yang 2020, Random Erasing Data Augmentation, algorithm 1.
    """

    def __init__(
        self, chance: float | int = 0.5, low: float | int = 0.02, high: float | int = 0.33, value: float | int = 0.0
    ):
        self.chance, self.value = check_fraction("chance", chance), check_fraction("value", value)
        self.low, self.high = check_fraction("low", low), check_fraction("high", high)
        check_interval(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are erased, and a rectangle for each row."""
        from kornia.geometry.bbox import bbox_generator, bbox_to_mask

        is_erased = draw_mask(images, self.chance)
        height, width = images.shape[-2:]
        area, ratio, down, across = draw_uniform(images, 0, 1, count=4).unbind(1)
        area = (self.low + (self.high - self.low) * area) * height * width
        ratio = SMALLEST_RATIO ** (1 - 2 * ratio)
        rows = (area * ratio).sqrt().round().clamp(1, height)
        columns = (area / ratio).sqrt().round().clamp(1, width)
        top, left = (down * (height - rows + 1)).floor(), (across * (width - columns + 1)).floor()
        rectangle = bbox_to_mask(bbox_generator(left, top, columns, rows), width, height).bool()
        return torch.where(is_erased & rectangle[:, None], self.value, images)
