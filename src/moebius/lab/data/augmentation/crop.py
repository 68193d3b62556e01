"""Random crops of padded images."""

from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.augmentation._augmentation import Augmentation, draw_uniform

FILLS = {"zeros": "zeros", "nearest": "border"}


class Crop(Augmentation):
    """Pads each image on all sides and crops it to its size at a random position: a shift by whole pixels.

    x'[v, u] = padded[v + a, u + b],  a, b ~ U{0, 1, …, 2·padding}

    Arguments:
        padding: number of pixels added on each side, at least 1.
        fill: values of the added pixels: `zeros` (black), or `nearest`, the nearest pixel of the border.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: `padding` is not a whole number of at least 1, or `fill` is unknown.

    Example:
        >>> import torch
        >>> Crop(padding=2, fill="nearest")(torch.full((2, 3, 8, 8), 0.5)).unique()
        tensor([0.5000])

    Reference: Lee, Xie, Gallagher, Zhang, Tu 2015, Deeply-Supervised Nets, section 3 (CIFAR-10: 4 pixels of zeros).
    """

    def __init__(self, padding: int = 4, fill: str = "zeros"):
        self.padding = positive_integer("padding", padding)
        if fill not in FILLS:
            raise ArgumentError("fill", f"needs one of {', '.join(FILLS)}", fill, did_you_mean(fill, FILLS))
        self.fill = fill

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw a position for each row and crop the row there."""
        from kornia.geometry.transform import translate

        # One translation pads and crops: with whole offsets, nearest-pixel interpolation copies pixels to the bit.
        positions = 2 * self.padding + 1
        offset = draw_uniform(images, 0, positions, count=2).floor().clamp(max=positions - 1) - self.padding
        return translate(images, offset, mode="nearest", padding_mode=FILLS[self.fill])
