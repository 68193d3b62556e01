"""Additive Gaussian noise."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import non_negative
from moebius.lab.data.augmentation._augmentation import Augmentation


class Noise(Augmentation):
    """Adds Gaussian noise to each value and clamps the sum to [0, 1].

    x' = min(1, max(0, x + std·ε)),  ε ~ N(0, 1)

    Arguments:
        std: standard deviation of the noise, at least 0; the distance from black to white is 1.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a negative standard deviation.

    Example:
        >>> Noise(std=0.1)(torch.full((2, 3, 8, 8), 0.5)).unique().numel() > 300
        True

    Reference: Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization.
    """

    def __init__(self, std: float | int = 0.05):
        self.std = non_negative("std", std)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw the noise and add it."""
        # randn_like would fill channels-last memory in another order, and nine times slower.
        return images + self.std * torch.randn(images.shape, device=images.device).to(images.dtype)
