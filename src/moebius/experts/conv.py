"""The convolutional expert."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.networks import ConvNet, start_layers


class Conv(nn.Module):
    """The logits of a small convolutional network of the image.

    Blocks of [3×3 convolution that keeps the size, relu, 2×2 max-pooling], flatten, dense relu layers, dense C.

    Arguments:
        channels: of the images.
        size: their height and width, in pixels; each block halves it (rounded down).
        classes: C, number of outputs.
        filters: output channels of each block, at least one block.
        hidden: widths of the dense relu layers; may be empty.
        bias: whether convolutions and dense layers have biases.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: images (T, channels, size, size) → (T, C).

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or images of another shape.

    Example:
        >>> import torch
        >>> Conv(channels=1, size=8, classes=10, filters=[4, 4], hidden=[8])(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])

    Reference: study 2's expert, with the default arguments. relu is computed after the pooling: the same function.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        filters: Sequence[int] = (128, 128),
        hidden: Sequence[int] = (128,),
        bias: bool = True,
        init: str = "torch",
    ):
        super().__init__()
        outputs = positive_integer("classes", classes)
        self.network = ConvNet(channels, size, filters, hidden, outputs, "relu", bias)
        self.channels, self.size, self.classes = channels, size, classes
        self.filters, self.hidden = self.network.filters, self.network.hidden
        self.bias, self.init = bias, start_layers(self, init)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """Logits of each image."""
        return self.network(x)
