"""Small convolutional networks with one convolution in each block."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks.activations import MONOTONE, activate_map, activation_named
from moebius.networks.dense import Dense


class ConvNet(nn.Module):
    """Blocks of a 3×3 convolution that keeps the size, 2×2 max-pooling and an activation; then dense layers.

    The activation follows the pooling: for a monotone activation this is the same function with the same gradients, on
    a quarter of the values. The last map is flattened position by position, all channels of one position before those
    of the next, which needs no copy in channels-last memory.

    Arguments:
        channels: of the input images.
        size: their height and width, in pixels; each block halves it (rounded down).
        filters: output channels of each block, at least one block.
        hidden: widths of the dense relu layers; may be empty.
        outputs: width of the last dense layer, which has no activation.
        activation: of the blocks, one of `MONOTONE`.
        bias: whether convolutions and dense layers have biases.

    Shapes: x (T, channels, size, size) → (T, outputs).

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or an input of another shape.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        filters: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
        activation: str,
        bias: bool = True,
    ):
        super().__init__()
        self.channels, self.size, self.activation = (
            positive_integer("channels", channels),
            positive_integer("size", size),
            activation,
        )
        self.filters = filters = positive_widths("filters", filters)
        self.hidden = hidden = positive_widths("hidden", hidden) if hidden else ()
        self.outputs = outputs
        activation_named(activation, MONOTONE)
        last_size = pooled_sizes(size, filters)[-1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=bias) for before, after in pairwise([channels, *filters])
        )
        self.dense = Dense(filters[-1] * last_size**2, hidden, outputs, bias=bias)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """The last dense layer's output for each image."""
        check_images(x, self.channels, self.size)
        for convolution in self.convolutions:
            x = activate_map(F.max_pool2d(convolution(x), 2), self.activation)
        return self.dense(flatten_map(x))

    def extra_repr(self) -> str:
        """The arguments that the shapes of the parameters do not determine."""
        return f"channels={self.channels}, size={self.size}, activation={self.activation}"


def pooled_sizes(size: int, filters: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    """The width of an image in pixels, and its width after each block.

    Raises:
        ArgumentError: the width after the last block would be 0.

    Example:
        >>> pooled_sizes(11, [8, 8])
        [11, 5, 2]
    """
    if size >> len(filters) < 1:
        largest, value = size.bit_length() - 1, [block if isinstance(block, int) else list(block) for block in filters]
        rule = f"an image {size} pixels wide can be halved {largest} times, by as many blocks"
        fix = f"filters: {value[:largest]}" if largest else "size: 2, or larger images"
        raise ArgumentError("filters", rule, value, fix)
    return [size >> halvings for halvings in range(len(filters) + 1)]


def check_images(x: Float[Tensor, "T channels height width"], channels: int, size: int) -> None:
    """Check the shape of images.

    Raises:
        ArgumentError: their shape is not (channels, size, size).
    """
    if x.shape[1:] != (channels, size, size):
        rule = f"this network was built for images of shape {(channels, size, size)}"
        raise ArgumentError("x", rule, tuple(x.shape), f"channels={x.shape[1]}, size={x.shape[-1]}")


def flatten_map(x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T D"]:
    """The map flattened position by position, the channels of each together: no copy in channels-last memory."""
    return x.permute(0, 2, 3, 1).flatten(1)
