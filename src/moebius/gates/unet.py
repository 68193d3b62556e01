"""The gate that scores the experts at each pixel of an image."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.networks import UNet as Network
from moebius.networks import start_layers


class UNet(nn.Module):
    """The scores of each pixel of an image, by a small convolutional network with several resolutions.

    It is the gate of `mb.layers.PositionMixture`, with `channel_axis=1`.

    With one number in `filters` the network is fully convolutional at the image's own resolution: a 3×3 convolution,
    the activation, a 1×1 convolution. Each further number is a resolution of half the size, joined to the finer one.

    Arguments:
        channels: of the images.
        experts: E, number of scores of each pixel.
        filters: channels at each resolution, the finest first; at least one.
        activation: of the convolutions but the last: relu, elu, tanh or none.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: images (T, channels, height, width) → (T, E, height, width).

    Raises:
        ArgumentError: a value out of range, images with other channels, or images that cannot be halved often enough.

    Example:
        >>> import torch
        >>> UNet(channels=3, experts=2, filters=[4, 8])(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 2, 8, 8])

    Reference: Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation; with
    one convolution for each two of theirs, and enlarging by repeated values.
    """

    by_position = True

    def __init__(
        self,
        channels: int,
        experts: int,
        filters: Sequence[int] = (8, 16),
        activation: str = "relu",
        init: str = "torch",
    ):
        super().__init__()
        self.network = Network(channels, positive_integer("experts", experts), filters, activation)
        self.channels, self.experts = channels, experts
        self.filters, self.activation = self.network.filters, activation
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T E height width"]:
        """The scores of each pixel."""
        return self.network(x)
