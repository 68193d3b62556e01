"""Augmented copies of a split that stay the same: what is computed of them once can be kept."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.lab.data.batches import scale
from moebius.lab.data.split import Split

# Rows augmented at once, 2 times as fast as 1,024 of 32×32 pixels in colour. Another number draws other views.
CHUNK = 256


def augmented_views(split: Split, augmentations: Sequence[Callable[[Tensor], Tensor]], count: int, seed: int) -> Split:
    """Every row of `split` augmented `count` times: rows v·T … (v+1)·T − 1 are view v, in the split's order.

    Drawn from the seed alone, on the CPU wherever the split is, so that on one machine the same seed gives the same
    bits; torch's global generator stays as it was. More views leave the first ones as they are. Values are rounded to
    bytes again.

    What frozen experts say of a fixed set of views can be computed once, where fresh draws in each step cannot.

    Arguments:
        split: T rows.
        augmentations: from images in [0, 1] to images in [0, 1], one after another.
        count: how many views of each row, at least 1.
        seed: at least 0.

    Returns:
        count · T rows, on the split's device.

    Raises:
        ArgumentError: a count or a seed that is no such number.

    Example:
        >>> from moebius.lab.data.augmentation.flip import Flip
        >>> zeros = torch.zeros(3, dtype=torch.int64)
        >>> split = Split(torch.zeros((3, 1, 8, 8), dtype=torch.uint8), zeros, zeros)
        >>> len(augmented_views(split, [Flip()], count=4, seed=0))
        12
    """
    positive_integer("count", count)
    if isinstance(seed, bool) or seed < 0:
        raise ArgumentError("seed", "must be at least 0", seed, "seed: 0")
    rows, images = len(split), split.images.cpu()
    copies = torch.empty((count * rows, *images.shape[1:]), dtype=images.dtype)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the generators of other devices too.
        torch.default_generator.manual_seed(seed)
        for view in range(count):
            for first in range(0, rows, CHUNK):
                chunk = images[first : first + CHUNK]
                place = view * rows + first
                copies[place : place + len(chunk)] = _augmented(chunk, augmentations)
    return Split(copies.to(split.images.device), split.labels.repeat(count), split.domains.repeat(count))


def _augmented(images: Tensor, augmentations: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    if images.dtype != torch.uint8:
        return apply_augmentations(images, augmentations)
    return apply_augmentations(scale(images), augmentations).mul(255).round().to(torch.uint8)
