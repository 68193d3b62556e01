"""Blurred images."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import positive_number
from moebius.lab.data.augmentation._augmentation import Augmentation, ascending, chosen, share, uniform


class Blur(Augmentation):
    """Blurs some of the images with a Gaussian.

    x' = x ∗ N(0, σ²),  σ ~ U(low, high), out to three times the largest σ; the border's pixels are repeated outside

    Arguments:
        chance: the probability for each image, 0 … 1.
        low: the smallest σ, in pixels, above 0.
        high: the largest, at least `low`.

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
        self.chance = share("chance", chance)
        self.low, self.high = positive_number("low", low), positive_number("high", high)
        ascending(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are blurred, and by how much."""
        from kornia.filters import gaussian_blur2d

        hit, sigma = chosen(images, self.chance), uniform(images, self.low, self.high)
        width = 2 * math.ceil(3 * self.high) + 1
        blurred = gaussian_blur2d(images, width, sigma.expand(-1, 2), border_type="replicate")
        return torch.where(hit, blurred, images)
