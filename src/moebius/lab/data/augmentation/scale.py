"""Zooms."""

from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import positive_number
from moebius.lab.data.augmentation._augmentation import Augmentation, check_interval, draw_uniform


class Scale(Augmentation):
    """Zooms into or out of each image about its centre, equally in both directions; its size in pixels stays the same.

    x'(p) = x((p − centre) / s + centre),  s ~ U(low, high), interpolated bilinearly

    For s > 1 the margins are lost; for s < 1 the new margins repeat the nearest pixel of the border.

    Arguments:
        low: the smallest factor s, above 0.
        high: the largest factor s, at least `low`.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: a factor that is not above 0, or `low` above `high`.

    Example:
        >>> import torch
        >>> Scale(low=0.8, high=1.2)(torch.full((1, 1, 2, 2), 0.5))
        tensor([[[[0.5000, 0.5000],
                  [0.5000, 0.5000]]]])

    Reference: Simonyan, Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition, 3.1 (scale
    jittering).
    """

    def __init__(self, low: float | int = 0.8, high: float | int = 1.2):
        self.low, self.high = positive_number("low", low), positive_number("high", high)
        check_interval(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw a factor for each row and scale it."""
        from kornia.geometry.transform import scale

        return scale(images, draw_uniform(images, self.low, self.high), padding_mode="border")
