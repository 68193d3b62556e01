"""Gaussian blur."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import positive_number
from moebius.lab.data.augmentation._augmentation import (
    Augmentation,
    check_fraction,
    check_interval,
    draw_mask,
    draw_uniform,
)


class Blur(Augmentation):
    """Blurs some of the images with a Gaussian kernel.

    x' = x ∗ N(0, σ²) with probability `chance`, else x;  σ ~ U(low, high) for each image

    The kernel reaches to three times the largest σ. Outside of the image, the nearest pixel of the border is repeated.

    Arguments:
        chance: probability that an image is blurred, 0 … 1.
        low: the smallest σ, in pixels, above 0.
        high: the largest σ, in pixels, at least `low`.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a chance outside 0 … 1, a σ that is not above 0, or `low` above `high`.

    Example:
        >>> Blur(chance=1, low=1, high=1)(torch.tensor([[[[0.0], [0.0], [1.0], [0.0], [0.0]]]])).flatten()
        tensor([0.0540, 0.2420, 0.3991, 0.2420, 0.0540])

    Reference: Chen, Kornblith, Norouzi, Hinton 2020, A Simple Framework for Contrastive Learning of Visual
    Representations, appendix A.
    """

    def __init__(self, chance: float | int = 0.5, low: float | int = 0.1, high: float | int = 1.0):
        self.chance = check_fraction("chance", chance)
        self.low, self.high = positive_number("low", low), positive_number("high", high)
        check_interval(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are blurred, and the σ of each row."""
        from kornia.filters import gaussian_blur2d

        is_blurred, sigma = draw_mask(images, self.chance), draw_uniform(images, self.low, self.high)
        width = 2 * math.ceil(3 * self.high) + 1
        blurred = gaussian_blur2d(images, width, sigma.expand(-1, 2), border_type="replicate")
        return torch.where(is_blurred, blurred, images)
