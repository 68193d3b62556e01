"""Images in other light."""

import math

from jaxtyping import Float
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._augmentation import Augmentation, is_grey, share, uniform


class Color(Augmentation):
    """Changes each image's brightness, contrast, saturation and hue, in this order.

    brightness: x·b · contrast: m + (x − m)·c with m the mean of the grey image ·
    saturation: g + (x − g)·s with g the grey image · hue: turned by h of the colour circle

    b, c, s ~ U(1 − amount, 1 + amount), h ~ U(−hue, hue), each cut off at 0 and 1. The order is fixed, where the paper
    draws one, so that rows do not share a draw. An amount of 0 leaves that step out.

    Arguments:
        brightness: 0 … 1.
        contrast: 0 … 1.
        saturation: 0 … 1; 0 for grey images, which have none.
        hue: a share of the colour circle, 0 … 0.5; 0 for grey images.

    Shapes: images (T, channels, height, width) with 1 or 3 channels, values in [0, 1] → the same.

    Raises:
        ArgumentError: an amount out of its range; at the call, saturation or hue of grey images, or 2 or more than 3
            channels.

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
        self.brightness, self.contrast = share("brightness", brightness), share("contrast", contrast)
        self.saturation, self.hue = share("saturation", saturation), share("hue", hue)
        if self.hue > 0.5:
            raise ArgumentError("hue", "needs at most 0.5, half the colour circle", hue, "hue: 0.5")

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw the amounts for each row and change it."""
        from kornia import enhance

        grey = is_grey(images)
        for name in ("saturation", "hue"):
            if grey and getattr(self, name):
                raise ArgumentError(name, "must be 0 for grey images", getattr(self, name), f"{name}: 0")
        steps = (
            (self.brightness, enhance.adjust_brightness_accumulative),
            (self.contrast, enhance.adjust_contrast_with_mean_subtraction),
            (self.saturation, enhance.adjust_saturation_with_gray_subtraction),
        )
        for amount, adjust in steps:
            if amount:
                images = adjust(images, uniform(images, 1 - amount, 1 + amount).squeeze(1))
        if self.hue:
            angle = 2 * math.pi * self.hue
            images = enhance.adjust_hue(images, uniform(images, -angle, angle).squeeze(1))
        return images
