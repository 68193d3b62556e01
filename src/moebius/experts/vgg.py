"""The convolutional expert in the style of VGG."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from moebius.kit.arguments import positive_integer
from moebius.networks import VGG as Network
from moebius.networks.vgg import DROPOUT, FILTERS


class VGG(nn.Module):
    """The logits of a convolutional network of the image with several convolutions in each block.

    Blocks of [3×3 convolution that keeps the size, activation, batch normalisation] for each of their widths, 2×2
    max-pooling and dropout; flatten, dense relu layers with dropout, dense C.

    Arguments:
        channels: of the images.
        size: their height and width, in pixels; each block halves it (rounded down).
        classes: C, number of outputs.
        filters: output channels of each block's convolutions, a list for each block.
        dropout: probability that a value after a block is set to 0 in training, where other values are scaled up; one
            number for all blocks, or a list with one for each.
        hidden: widths of the dense relu layers; may be empty.
        hidden_dropout: the same probability after each dense relu layer.
        activation: of the blocks, one of none, relu, elu, tanh, gelu, silu.
        batch_norm: whether batch normalisation follows each activation of the blocks.
        batch_norm_eps: what batch normalisation adds to a variance, above 0; Keras' default is 1e-3.
        batch_norm_momentum: share of a batch in the running statistics, 0 … 1; Keras' default, .99 there, is .01 here.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: images (T, channels, size, size) → (T, C).

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or images of another shape.

    Example:
        >>> import torch
        >>> expert = VGG(channels=3, size=8, classes=10, filters=[[4, 4], [8]], dropout=0.25, hidden=[16])
        >>> expert(torch.zeros(5, 3, 8, 8)).shape
        torch.Size([5, 10])

    Reference: Simonyan, Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition. The default
    is study 3's expert. Study 4's small network is filters [[32, 32], [64, 64]], dropout 0.25, hidden [512],
    hidden_dropout 0.5, activation relu, batch_norm false; the large one has a third block [128, 128, 128].
    """

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        filters: Sequence[Sequence[int]] = FILTERS,
        dropout: float | int | Sequence[float | int] = DROPOUT,
        hidden: Sequence[int] = (),
        hidden_dropout: float | int = 0.0,
        activation: str = "elu",
        batch_norm: bool = True,
        batch_norm_eps: float | int = 1e-5,
        batch_norm_momentum: float | int = 0.1,
        init: str = "keras",
    ):
        super().__init__()
        outputs = positive_integer("classes", classes)
        norm = (batch_norm, batch_norm_eps, batch_norm_momentum)
        self.network = Network(
            channels, size, outputs, filters, dropout, hidden, hidden_dropout, activation, *norm, init
        )
        self.channels, self.size, self.classes = channels, size, classes
        self.filters, self.dropout = self.network.filters, self.network.dropout
        self.hidden, self.hidden_dropout = self.network.hidden, self.network.hidden_dropout
        self.activation, self.batch_norm = activation, batch_norm
        self.batch_norm_eps, self.batch_norm_momentum = batch_norm_eps, batch_norm_momentum
        self.init = init

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """Logits of each image."""
        return self.network(x)
