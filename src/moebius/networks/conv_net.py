"""Small convolutional networks, one convolution to a block."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks.activations import NEVER_FALLING, activate_map, activation_named
from moebius.networks.dense import Dense


class ConvNet(nn.Module):
    """Blocks of a 3×3 convolution that keeps the size, 2×2 max-pooling and an activation; then dense layers.

    The activation comes after the pooling: for one that never falls this is the same function, gradients included,
    on a quarter of the values. The last map is flattened position by position, all channels of one after all of
    another, which for channels-last memory is no copy.

    Arguments:
        channels: of the input images.
        size: their height and width, in pixels; each block halves it (rounded down).
        filters: output channels of each block, at least one block.
        hidden: widths of the dense relu layers, none allowed.
        outputs: width of the last dense layer, which has no activation.
        activation: of the blocks, one of `NEVER_FALLING`.

    Shapes: x (T, channels, size, size) → (T, outputs).

    Raises:
        ArgumentError: a value out of range, an image too small for so many blocks, or an input of another shape.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        filters: Sequence[int],
        hidden: Sequence[int],
        outputs: int,
        activation: str,
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
        activation_named(activation, NEVER_FALLING)
        last_size = pooled_sizes(size, filters)[-1]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise([channels, *filters])
        )
        self.dense = Dense(filters[-1] * last_size**2, hidden, outputs)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """The last dense layer's output for each image."""
        check_images(x, self.channels, self.size)
        for convolution in self.convolutions:
            x = activate_map(F.max_pool2d(convolution(x), 2), self.activation)
        return self.dense(flat_map(x))

    def extra_repr(self) -> str:
        """What tells two equal shapes apart."""
        return f"channels={self.channels}, size={self.size}, activation={self.activation}"


def pooled_sizes(size: int, filters: Sequence[int] | Sequence[Sequence[int]]) -> list[int]:
    """The image's width in pixels, and that after each block.

    Raises:
        ArgumentError: nothing is left of it.

    Example:
        >>> pooled_sizes(11, [8, 8])
        [11, 5, 2]
    """
    if size >> len(filters) < 1:
        most, plain = size.bit_length() - 1, [one if isinstance(one, int) else list(one) for one in filters]
        rule = f"an image {size} pixels wide can be halved {most} times, by as many blocks"
        raise ArgumentError("filters", rule, plain, f"filters: {plain[:most]}" if most else None)
    return [size >> halvings for halvings in range(len(filters) + 1)]


def check_images(x: Float[Tensor, "T channels height width"], channels: int, size: int) -> None:
    """Raise an ArgumentError where images are not of shape (channels, size, size)."""
    if x.shape[1:] != (channels, size, size):
        rule = f"this network was built for images of shape {(channels, size, size)}"
        raise ArgumentError("x", rule, tuple(x.shape), f"channels={x.shape[1]}, size={x.shape[-1]}")


def flat_map(x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T D"]:
    """All channels of one position after all of another, which for channels-last memory is no copy."""
    return x.permute(0, 2, 3, 1).flatten(1)
