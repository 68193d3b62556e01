"""Images with a hole."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, ascending, chosen, share, uniform

# The paper's r₁; a hole is as often tall as wide.
NARROWEST = 0.3


class Erase(Augmentation):
    """Paints over a rectangle of some of the images.

    area ~ U(low, high) of the image, ln(height / width) ~ U(ln 0.3, −ln 0.3), its place uniform

    Sides are rounded to whole pixels, at least 1 and at most the image's, where the paper draws again. The shape is
    drawn on a log scale, so that tall holes are as frequent as wide ones; the paper draws it linearly.

    Arguments:
        chance: the probability for each image, 0 … 1.
        low: the smallest hole, as a share of the area, 0 … 1.
        high: the largest, `low` … 1.
        value: what the hole is painted with, 0 (black) … 1 (white); the paper paints noise.

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
        self.chance, self.value = share("chance", chance), share("value", value)
        self.low, self.high = share("low", low), share("high", high)
        ascending(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw a rectangle for each row and paint over those that are hit."""
        from kornia.geometry.bbox import bbox_generator, bbox_to_mask

        hit = chosen(images, self.chance)
        height, width = images.shape[-2:]
        area, tall, down, across = uniform(images, 0, 1, each=4).unbind(1)
        area = (self.low + (self.high - self.low) * area) * height * width
        ratio = NARROWEST ** (1 - 2 * tall)
        rows = (area * ratio).sqrt().round().clamp(1, height)
        columns = (area / ratio).sqrt().round().clamp(1, width)
        top, left = (down * (height - rows + 1)).floor(), (across * (width - columns + 1)).floor()
        hole = bbox_to_mask(bbox_generator(left, top, columns, rows), width, height).bool()
        return torch.where(hit & hole[:, None], self.value, images)
