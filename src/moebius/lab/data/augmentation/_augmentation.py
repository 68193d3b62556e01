"""The contract of augmentations, and how their random numbers are drawn."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moebius.kit.arguments import non_negative
from moebius.kit.errors import ArgumentError
from moebius.routers._normalisation import at_least_float32


class Augmentation:
    """The contract: a batch of images in [0, 1] → as many of the same shape, dtype and layout, in [0, 1].

    Every row is drawn by itself, in float32, from torch's global generator of the device where the images are: a
    generator whose state was kept draws the same again, and the draws do not depend on the images' dtype or layout.
    kornia's functions change the images rather than its modules, which draw on the CPU unless told otherwise, keep the
    last draw, and took twice the time.

    A subclass says in `change` what becomes of the rows. There are no gradients, and 0 rows draw nothing.
    """

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Augment every row; `images` stay as they are.

        Raises:
            ArgumentError: the images are no floating-point numbers.
        """
        if not images.is_floating_point():
            raise ArgumentError("images", "must be floating-point numbers in [0, 1]", str(images.dtype), "images / 255")
        if not len(images):
            return images.clone()
        changed = self.change(at_least_float32(images)).clamp(0, 1)
        return torch.empty_like(images).copy_(changed)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """The changed images, of which values outside [0, 1] will be cut off; at least one row, float32 at least."""
        raise TypeError(f"{type(self).__name__} is an augmentation without a change")


def share(argument: str, value: float | int) -> float:
    """`value` if it is a number between 0 and 1."""
    if non_negative(argument, value) > 1:
        raise ArgumentError(argument, "needs a number between 0 and 1", value)
    return float(value)


def ascending(low: float, high: float) -> None:
    """Check that an interval's ends are in order."""
    if low > high:
        raise ArgumentError("low", f"must be at most high, which is {high}", low, f"low: {high}")


def uniform(
    images: Float[Tensor, "T ..."], low: float | int, high: float | int, each: int = 1
) -> Float[Tensor, "T each"]:
    """Numbers between `low` and `high` for every row, as many as `each` says."""
    drawn = torch.rand(len(images), each, device=images.device)
    return (low + (high - low) * drawn).to(images.dtype)


def chosen(images: Float[Tensor, "T ..."], chance: float) -> Bool[Tensor, "T 1 1 1"]:
    """Which rows are hit by something that happens with probability `chance`."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < chance


def is_grey(images: Float[Tensor, "T channels height width"]) -> bool:
    """Whether the images have one channel.

    Raises:
        ArgumentError: they have neither one nor three, so that they have no colours.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ArgumentError("images", "need 1 channel (grey) or 3 (red, green, blue)", channels)
    return channels == 1
