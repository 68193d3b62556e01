"""Images seen from nearer or farther."""

from jaxtyping import Float
from torch import Tensor

from moebius.kit.arguments import positive_number
from moebius.lab.data.augmentation._augmentation import Augmentation, ascending, uniform


class Scale(Augmentation):
    """Enlarges or shrinks what each image shows, about its centre and alike in both directions; the size stays.

    x'(p) = x((p − centre) / s + centre),  s ~ U(low, high), interpolated bilinearly

    Above 1 the margins are lost; below 1 new ones repeat the nearest pixel of the border.

    Arguments:
        low: the smallest factor s, above 0.
        high: the largest, at least `low`.

    Shapes: images (T, channels, height, width), values in [0, 1] → the same.

    Raises:
        ArgumentError: factors that are not above 0, or in the wrong order.

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
        ascending(self.low, self.high)

    def change(self, images: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        """Draw a factor for each row and scale it."""
        from kornia.geometry.transform import scale

        return scale(images, uniform(images, self.low, self.high), padding_mode="border")
