"""Changes of brightness, contrast, saturation and hue."""

import math

from jaxtyping import Float
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._augmentation import Augmentation, check_fraction, draw_uniform, is_grey


class Color(Augmentation):
    """Changes each image's brightness, contrast, saturation and hue, in this order.

    brightness: x·b · contrast: m + (x − m)·c with m the mean of the grey image ·
    saturation: g + (x − g)·s with g the grey image · hue: rotated by the share h of the colour circle

    b, c, s ~ U(1 − amount, 1 + amount), h ~ U(−hue, hue); each step clamps its result to [0, 1]. The paper draws an
    order of the steps for the whole batch; here the order is fixed, so that rows share no random number. A step whose
    amount is 0 is skipped.

    Arguments:
        brightness: largest relative change of the brightness, 0 … 1.
        contrast: largest relative change of the contrast, 0 … 1.
        saturation: largest relative change of the saturation, 0 … 1; must be 0 for grey images.
        hue: largest rotation, as a share of the colour circle, 0 … 0.5; must be 0 for grey images.

    Shapes: images (T, channels, height, width) with 1 or 3 channels, values in [0, 1] → the same.

    Raises:
        ArgumentError: an amount outside its range. A call raises it for grey images where saturation or hue is above
            0, and for images with neither 1 nor 3 channels.

    Example:
        >>> import torch
        >>> Color(brightness=0.5)(torch.full((4, 3, 2, 2), 0.5)).flatten(1).unique(dim=1).shape
        torch.Size([4, 1])

    Reference: Chen, Kornblith, Norouzi, Hinton 2020, A Simple Framework for Contrastive Learning of Visual
    Representations, appendix A.
    """

    def __init__(
        self,
        brightness: float | int = 0.2,
        contrast: float | int = 0.2,
        saturation: float | int = 0.0,
        hue: float | int = 0.0,
    ):
        self.brightness, self.contrast = check_fraction("brightness", brightness), check_fraction("contrast", contrast)
        self.saturation, self.hue = check_fraction("saturation", saturation), check_fraction("hue", hue)
        if self.hue > 0.5:
            raise ArgumentError("hue", "needs at most 0.5, half of the colour circle", hue, "hue: 0.5")

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw the factors and the rotation of each row, and apply them."""
        from kornia import enhance

        images_are_grey = is_grey(images)
        for name in ("saturation", "hue"):
            if images_are_grey and getattr(self, name):
                raise ArgumentError(name, "must be 0 for grey images", getattr(self, name), f"{name}: 0")
        steps = (
            (self.brightness, enhance.adjust_brightness_accumulative),
            (self.contrast, enhance.adjust_contrast_with_mean_subtraction),
            (self.saturation, enhance.adjust_saturation_with_gray_subtraction),
        )
        for amount, adjust in steps:
            if amount:
                images = adjust(images, draw_uniform(images, 1 - amount, 1 + amount).squeeze(1))
        if self.hue:
            angle = 2 * math.pi * self.hue
            images = enhance.adjust_hue(images, draw_uniform(images, -angle, angle).squeeze(1))
        return images
