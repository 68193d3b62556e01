"""Images without colours."""

import torch
from jaxtyping import Float
from torch import Tensor

from moebius.lab.data.augmentation._augmentation import Augmentation, chosen, is_grey, share


class Greyscale(Augmentation):
    """Takes the colours out of some of the images; they keep their three channels, all alike.

    x'_c = 0.299 red + 0.587 green + 0.114 blue (ITU-R 601) with probability p, else x

    Grey images stay as they are.

    Arguments:
        chance: p, the probability for each image, 0 … 1.

    Shapes: images (T, channels, height, width) with 1 or 3 channels, values in [0, 1] → the same.

    Raises:
        ArgumentError: a chance outside 0 … 1; at the call, 2 or more than 3 channels.

    Example:
        >>> Greyscale(chance=1)(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten()
        tensor([0.2990, 0.2990, 0.2990])

    Reference: Chen, Kornblith, Norouzi, Hinton 2020, A Simple Framework for Contrastive Learning of Visual
    Representations, appendix A.
    """

    def __init__(self, chance: float | int = 0.2):
        self.chance = share("chance", chance)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw which rows lose their colours."""
        from kornia.color import rgb_to_grayscale

        hit = chosen(images, self.chance)
        return images if is_grey(images) else torch.where(hit, rgb_to_grayscale(images), images)
