"""Convolutional networks of the VGG kind, several convolutions to a block."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks._dropout import dropout_rate
from moebius.networks.activations import NEVER_FALLING, activate_map, activation_named
from moebius.networks.conv_net import check_images, flat_map, pooled_sizes
from moebius.networks.dense import Dense

# Study 3's.
FILTERS = ((32, 32), (64, 64), (128, 128))
DROPOUT = (0.2, 0.3, 0.4)


class VGG(nn.Module):
    """Blocks of 3×3 convolutions that keep the size, then 2×2 max-pooling and dropout; then dense layers.

    block = [convolution, activation, batch normalisation] for each of its widths, max-pooling, dropout

    Where a block's last activation never falls and no normalisation follows it, it comes after the pooling: the same
    function, gradients included, on a quarter of the values. The last map is flattened position by position, as in
    `ConvNet`. Kernels begin as Glorot and Bengio have them, biases at 0: Keras' start, which the studies had.

    Arguments:
        channels: of the input images.
        size: their height and width, in pixels; each block halves it (rounded down).
        outputs: width of the last dense layer, which has no activation.
        filters: output channels of each block's convolutions, a list for each block.
        dropout: share of the values that is set to 0 after the pooling while training; one for all blocks, or a list of
            one for each.
        hidden: widths of the dense relu layers, none allowed.
        hidden_dropout: the same share after each dense relu layer.
        activation: of the blocks, one of `ACTIVATIONS`.
        batch_norm: whether batch normalisation follows each activation of the blocks.

    Shapes: x (T, channels, size, size) → (T, outputs).

    Raises:
        ArgumentError: a value out of range, an image too small for so many blocks, or an input of another shape.

    Reference: Simonyan, Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition;
    Glorot, Bengio 2010, Understanding the Difficulty of Training Deep Feedforward Neural Networks, equation 16.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        outputs: int,
        filters: Sequence[Sequence[int]] = FILTERS,
        dropout: float | int | Sequence[float | int] = DROPOUT,
        hidden: Sequence[int] = (),
        hidden_dropout: float | int = 0.0,
        activation: str = "elu",
        batch_norm: bool = True,
    ):
        super().__init__()
        self.channels, self.size, self.outputs = (
            positive_integer("channels", channels),
            positive_integer("size", size),
            outputs,
        )
        self.filters = filters = _blocks(filters)
        self.dropout = _shares(dropout, len(filters))
        self.hidden = positive_widths("hidden", hidden) if hidden else ()
        self.hidden_dropout = dropout_rate("hidden_dropout", hidden_dropout)
        self.activation, self.batch_norm = activation, batch_norm
        activation_named(activation)
        last_size = pooled_sizes(size, filters)[-1]
        before = [channels, *(block[-1] for block in filters)]
        self.blocks = nn.ModuleList(
            _Block([width, *block], share, activation, batch_norm)
            for width, block, share in zip(before, filters, self.dropout, strict=False)
        )
        self.dense = Dense(before[-1] * last_size**2, self.hidden, outputs, dropout=hidden_dropout)
        for name, parameter in self.named_parameters():
            # Not torch's own, which makes values shrink from layer to layer: seven convolutions deep, study 4's large
            # network stayed at chance for epochs.
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """The last dense layer's output for each image."""
        check_images(x, self.channels, self.size)
        for block in self.blocks:
            x = block(x)
        return self.dense(flat_map(x))

    def extra_repr(self) -> str:
        """What tells two equal shapes apart."""
        return f"channels={self.channels}, size={self.size}"


class _Block(nn.Module):
    """Convolutions of these widths, each with activation and normalisation, then pooling and dropout."""

    def __init__(self, widths: Sequence[int], dropout: float, activation: str, batch_norm: bool):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.norms = nn.ModuleList(_BatchNorm(width) for width in widths[1:]) if batch_norm else None
        self.drop = nn.Dropout(dropout)
        self.activation = activation
        self.pools_first = activation in NEVER_FALLING and not batch_norm

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels2 height2 width2"]:
        last = len(self.convolutions) - 1
        for place, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if place == last and self.pools_first:
                x = F.max_pool2d(x, 2)
            x = activate_map(x, self.activation)
            if self.norms is not None:
                x = self.norms[place](x)
        return self.drop(x if self.pools_first else F.max_pool2d(x, 2))

    def extra_repr(self) -> str:
        return f"activation={self.activation}"


class _BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that a batch without rows leaves as it was: its statistics would be NaN from then on.

    A branch of a tree that no row of a batch takes is given such batches.
    """

    def forward(self, input: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        if input.shape[0]:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _blocks(filters: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    if not filters or any(isinstance(block, int | str) or not block for block in filters):
        rule, plain = "needs blocks of at least one width each", list(filters)
        raise ArgumentError("filters", rule, plain, "filters: [[32, 32], [64, 64]]")
    return tuple(positive_widths("filters", block) for block in filters)


def _shares(dropout: float | int | Sequence[float | int], blocks: int) -> tuple[float, ...]:
    if isinstance(dropout, Sequence):
        if len(dropout) != blocks:
            rule = f"needs one number for all blocks, or one for each of them ({blocks})"
            raise ArgumentError("dropout", rule, list(dropout), f"dropout: {[0.25] * blocks}")
        return tuple(dropout_rate("dropout", share) for share in dropout)
    return (dropout_rate("dropout", dropout),) * blocks
