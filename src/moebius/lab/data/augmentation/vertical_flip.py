"""Images upside down."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, chosen, share


class VerticalFlip(Augmentation):
    """Turns some of the images upside down, as a mirror does.

    x'[v, u] = x[height − 1 − v, u] with probability p, else x

    Arguments:
        chance: p, the probability for each image, 0 … 1.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a chance outside 0 … 1.

    Example:
        >>> VerticalFlip(chance=1)(torch.tensor([[[[0.0], [0.5], [1.0]]]])).flatten()
        tensor([1.0000, 0.5000, 0.0000])

    Reference: Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks, 4.1,
    for the other direction.
    """

    def __init__(self, chance: float | int = 0.5):
        self.chance = share("chance", chance)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows are turned."""
        from kornia.geometry.transform import vflip

        return torch.where(chosen(images, self.chance), vflip(images), images)
