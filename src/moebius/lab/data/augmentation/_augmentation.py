"""The contract of augmentations, and the random numbers that they draw."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moebius.core.precision import at_least_float32
from moebius.kit.arguments import non_negative
from moebius.kit.errors import ArgumentError


class Augmentation:
    """The contract of an augmentation: a batch of images in [0, 1] → images of the same shape, dtype and layout.

    Every row has its own random numbers. They are drawn in float32 from torch's global generator of the images' device:
    restoring the generator's state repeats the draws, and dtype and layout of the images do not affect them. A subclass
    calls the functions of kornia, and not kornia's modules, which draw on the CPU by default, keep the last draw, and
    took twice the time.

    A subclass defines `change`. Calls compute no gradients, and a batch of 0 rows draws nothing.
    """

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Augment every row of a batch; `images` itself is not changed.

        Raises:
            ArgumentError: the images are not floating-point numbers.
        """
        if not images.is_floating_point():
            raise ArgumentError("images", "must be floating-point numbers in [0, 1]", str(images.dtype), "images / 255")
        if not len(images):
            return images.clone()
        changed = self.change(at_least_float32(images)).clamp(0, 1)
        return torch.empty_like(images).copy_(changed)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Change every row; the caller clamps the result to [0, 1].

        Arguments:
            images: at least one row, in float32 or float64.
        """
        raise TypeError(f"{type(self).__name__} is an augmentation without a change")


def check_fraction(argument: str, value: float | int) -> float:
    """Return `value` as a float if it is a number between 0 and 1."""
    if non_negative(argument, value) > 1:
        raise ArgumentError(argument, "needs a number between 0 and 1", value, f"{argument}: 0.5")
    return float(value)


def check_interval(low: float, high: float) -> None:
    """Check that `low` is at most `high`."""
    if low > high:
        raise ArgumentError("low", f"must be at most high, which is {high}", low, f"low: {high}")


def draw_uniform(
    images: Float[Tensor, "T ..."], low: float | int, high: float | int, count: int = 1
) -> Float[Tensor, "T count"]:
    """Draw `count` uniform numbers between `low` and `high` for every row."""
    numbers = torch.rand(len(images), count, device=images.device)
    return (low + (high - low) * numbers).to(images.dtype)


def draw_mask(images: Float[Tensor, "T ..."], chance: float) -> Bool[Tensor, "T 1 1 1"]:
    """Draw which rows to change: each is True with probability `chance`."""
    return torch.rand(len(images), 1, 1, 1, device=images.device) < chance


def is_grey(images: Float[Tensor, "T channels height width"]) -> bool:
    """Whether the images have one channel.

    Raises:
        ArgumentError: the images have neither 1 nor 3 channels, so that they have no colours.
    """
    channels = images.shape[1]
    if channels not in (1, 3):
        rule = "need 1 channel (grey) or 3 (red, green, blue)"
        raise ArgumentError("images", rule, channels, "images[:, :3]")
    return channels == 1
