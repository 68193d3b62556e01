"""The application of several augmentations, one after another."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def apply_augmentations(
    images: Float[Tensor, "T channels height width"], augmentations: Sequence[Callable[[Tensor], Tensor]]
) -> Float[Tensor, "T channels height width"]:
    """Apply the augmentations to the images, in this order and without gradients.

    Arguments:
        images: (T, channels, height, width), values in [0, 1].
        augmentations: functions of such images; for an empty list the result is `images` itself.

    Example:
        >>> from moebius.lab.data.augmentation.flip import Flip
        >>> apply_augmentations(torch.tensor([[[[0.0, 0.5, 1.0]]]]), [Flip(chance=1), Flip(chance=1)])
        tensor([[[[0.0000, 0.5000, 1.0000]]]])
    """
    for augmentation in augmentations:
        images = augmentation(images)
    return images
