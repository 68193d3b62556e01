"""The convolutional gate."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.networks import ConvNet, start_layers


class Conv(nn.Module):
    """The scores of a small convolutional network of the image.

    Blocks of [3×3 convolution that keeps the size, activation, 2×2 max-pooling], flatten, dense relu layers, dense E.

    Arguments:
        channels: of the images.
        size: their height and width, in pixels; each block halves it (rounded down).
        experts: E, number of scores per image.
        filters: output channels of each block, at least one block.
        hidden: widths of the dense relu layers; may be empty.
        activation: of the blocks: none (as in study 2, where only the pooling is not linear), relu, elu or tanh.
        bias: whether convolutions and dense layers have biases.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: images (T, channels, size, size) → (T, E).

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or images of another shape.

    Example:
        >>> import torch
        >>> Conv(channels=1, size=8, experts=2, filters=[4, 4], hidden=[8])(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2])

    Reference: study 2's `conv` gate, with the default arguments.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        experts: int,
        filters: Sequence[int] = (64, 64),
        hidden: Sequence[int] = (64,),
        activation: str = "none",
        bias: bool = True,
        init: str = "torch",
    ):
        super().__init__()
        outputs = positive_integer("experts", experts)
        self.network = ConvNet(channels, size, filters, hidden, outputs, activation, bias)
        self.channels, self.size, self.experts = channels, size, experts
        self.filters, self.hidden, self.activation = self.network.filters, self.network.hidden, activation
        self.bias, self.init = bias, start_layers(self, init)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T E"]:
        """The scores of each image."""
        return self.network(x)
