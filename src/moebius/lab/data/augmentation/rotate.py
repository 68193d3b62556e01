"""Rotations."""

from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import non_negative
from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation._augmentation import Augmentation, draw_uniform


class Rotate(Augmentation):
    """Rotates each image about its centre; pixels from outside of it repeat the nearest pixel of the border.

    x'(p) = x(R(θ) (p − centre) + centre),  θ ~ U(−degrees, degrees), interpolated bilinearly

    Arguments:
        degrees: the largest angle in either direction, 0 … 180.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: degrees outside 0 … 180.

    Example:
        >>> import torch
        >>> Rotate(degrees=15)(torch.full((1, 1, 2, 2), 0.5))
        tensor([[[[0.5000, 0.5000],
                  [0.5000, 0.5000]]]])

    Reference: Simard, Steinkraus, Platt 2003, Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis, section 2.
    """

    def __init__(self, degrees: float | int = 15):
        if non_negative("degrees", degrees) > 180:
            raise ArgumentError("degrees", "needs a number between 0 and 180", degrees, "degrees: 180")
        self.degrees = float(degrees)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw an angle for each row and rotate it."""
        from kornia.geometry.transform import rotate

        return rotate(images, draw_uniform(images, -self.degrees, self.degrees).squeeze(1), padding_mode="border")
