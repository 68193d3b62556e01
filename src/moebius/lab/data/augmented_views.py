"""A fixed set of augmented copies of a split, so that outputs of frozen experts can be computed once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.split import Split

# Rows per call of the augmentations: twice as fast as 1,024 rows of 32×32 pixels in colour. Another value draws other
# views.
CHUNK = 256


def make_augmented_views(
    split: Split, augmentations: Sequence[Callable[[Tensor], Tensor]], count: int, seed: int
) -> Split:
    """Augment every row of `split` `count` times: rows v·T … (v+1)·T − 1 are view v, in the split's order.

    The random numbers depend on the seed alone and are drawn on the CPU, whatever the split's device: on one machine
    the same seed gives the same bits. The global generator of torch keeps its state. A larger `count` does not change
    the first views. uint8 images are rounded to uint8 again after augmentation.

    The outputs of frozen experts for a fixed set of views can be computed once; for images that every step augments
    anew they cannot.

    Arguments:
        split: T rows.
        augmentations: functions from images in [0, 1] to images in [0, 1], applied in this order.
        count: number of views of each row, at least 1.
        seed: seed of the random numbers, at least 0.

    Returns:
        count · T rows, on the split's device.

    Raises:
        ArgumentError: `count` is not a whole number of at least 1, or `seed` is negative or a boolean.

    Example:
        >>> from moebius.lab.data.augmentation.flip import Flip
        >>> zeros = torch.zeros(3, dtype=torch.int64)
        >>> split = Split(torch.zeros((3, 1, 8, 8), dtype=torch.uint8), zeros, zeros)
        >>> len(make_augmented_views(split, [Flip()], count=4, seed=0))
        12
    """
    positive_integer("count", count)
    if isinstance(seed, bool) or seed < 0:
        raise ArgumentError("seed", "must be at least 0", seed, "seed: 0")
    rows, images = len(split), split.images.cpu()
    views = torch.empty((count * rows, *images.shape[1:]), dtype=images.dtype)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed the generators of other devices.
        torch.default_generator.manual_seed(seed)
        for view in range(count):
            for first in range(0, rows, CHUNK):
                chunk = images[first : first + CHUNK]
                start = view * rows + first
                views[start : start + len(chunk)] = _augment(chunk, augmentations)
    columns = {"labels": split.labels.repeat(count), "domains": split.domains.repeat(count)}
    return replace(split, images=views.to(split.images.device), **columns)


def _augment(images: Tensor, augmentations: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    """The augmented images, in the dtype of `images`."""
    if images.dtype != torch.uint8:
        return apply_augmentations(images, augmentations)
    return apply_augmentations(scale_pixels(images), augmentations).mul(255).round().to(torch.uint8)
