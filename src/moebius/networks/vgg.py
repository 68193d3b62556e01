"""Convolutional networks in the style of VGG, with several convolutions in each block."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import non_negative, positive_integer, positive_number, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks._dropout import dropout_rate
from moebius.networks.activations import MONOTONE, activate_map, activation_named
from moebius.networks.conv_net import check_images, flatten_map, pooled_sizes
from moebius.networks.dense import Dense
from moebius.networks.starts import start_layers

# The values of study 3.
FILTERS = ((32, 32), (64, 64), (128, 128))
DROPOUT = (0.2, 0.3, 0.4)


class VGG(nn.Module):
    """Blocks of 3×3 convolutions that keep the size, then 2×2 max-pooling and dropout; then dense layers.

    block = [convolution, activation, batch normalisation] for each of its widths, max-pooling, dropout

    Where a block's last activation is monotone and no normalisation follows it, it is computed after the pooling: the
    same function with the same gradients, on a quarter of the values. The last map is flattened position by position,
    as in `ConvNet`. By default weights begin as in Keras, which the studies used.

    Arguments:
        channels: of the input images.
        size: their height and width, in pixels; each block halves it (rounded down).
        outputs: width of the last dense layer, which has no activation.
        filters: output channels of each block's convolutions, a list for each block.
        dropout: probability that a value after the pooling is set to 0 in training; one number for all blocks, or a
            list with one for each.
        hidden: widths of the dense relu layers; may be empty.
        hidden_dropout: the same probability after each dense relu layer.
        activation: of the blocks, one of `ACTIVATIONS`.
        batch_norm: whether batch normalisation follows each activation of the blocks.
        batch_norm_eps: what batch normalisation adds to a variance, above 0; Keras' default is 1e-3.
        batch_norm_momentum: share of a batch in the running statistics, 0 … 1; Keras' default, .99 there, is .01 here.
        init: how weights and biases begin: torch, keras, he, lecun or orthogonal, see `networks.starts`.

    Shapes: x (T, channels, size, size) → (T, outputs).

    Raises:
        ArgumentError: a value out of range, an image too small for the number of blocks, or an input of another shape.

    Reference: Simonyan, Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition.
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
        batch_norm_eps: float | int = 1e-5,
        batch_norm_momentum: float | int = 0.1,
        init: str = "keras",
    ):
        super().__init__()
        self.channels, self.size, self.outputs = (
            positive_integer("channels", channels),
            positive_integer("size", size),
            outputs,
        )
        self.filters = filters = _check_blocks(filters)
        self.dropout = _check_dropout(dropout, len(filters))
        self.hidden = positive_widths("hidden", hidden) if hidden else ()
        self.hidden_dropout = dropout_rate("hidden_dropout", hidden_dropout)
        self.activation, self.batch_norm = activation, batch_norm
        self.batch_norm_eps = positive_number("batch_norm_eps", batch_norm_eps)
        if non_negative("batch_norm_momentum", batch_norm_momentum) > 1:
            rule = "needs a number between 0 and 1"
            raise ArgumentError("batch_norm_momentum", rule, batch_norm_momentum, "batch_norm_momentum: 0.1")
        self.batch_norm_momentum = float(batch_norm_momentum)
        norm = partial(_BatchNorm, eps=batch_norm_eps, momentum=batch_norm_momentum) if batch_norm else None
        activation_named(activation)
        last_size = pooled_sizes(size, filters)[-1]
        inputs = [channels, *(block[-1] for block in filters)]
        self.blocks = nn.ModuleList(
            _Block([width, *block], rate, activation, norm)
            for width, block, rate in zip(inputs, filters, self.dropout, strict=False)
        )
        self.dense = Dense(inputs[-1] * last_size**2, self.hidden, outputs, dropout=hidden_dropout)
        # With torch's start, values shrink from layer to layer: study 4's large network, seven convolutions deep,
        # stayed at chance accuracy for epochs.
        self.init = start_layers(self, init)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C"]:
        """The last dense layer's output for each image."""
        check_images(x, self.channels, self.size)
        for block in self.blocks:
            x = block(x)
        return self.dense(flatten_map(x))

    def extra_repr(self) -> str:
        """The arguments that the shapes of the parameters do not determine."""
        return f"channels={self.channels}, size={self.size}"


class _Block(nn.Module):
    """Convolutions of given widths, each with activation and normalisation, then pooling and dropout."""

    def __init__(self, widths: Sequence[int], dropout: float, activation: str, norm: Callable[[int], nn.Module] | None):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths))
        self.norms = None if norm is None else nn.ModuleList(map(norm, widths[1:]))
        self.drop = nn.Dropout(dropout)
        self.activation = activation
        self.pools_first = activation in MONOTONE and norm is None

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
    """Batch normalisation whose statistics a batch without rows does not change: they would stay NaN ever after.

    A branch of a tree receives such a batch if no row takes that branch.
    """

    def forward(self, input: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T channels height width"]:
        if input.shape[0]:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _check_blocks(filters: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    if not filters or any(isinstance(block, int | str) or not block for block in filters):
        rule, value = "needs blocks of at least one width each", list(filters)
        raise ArgumentError("filters", rule, value, "filters: [[32, 32], [64, 64]]")
    return tuple(positive_widths("filters", block) for block in filters)


def _check_dropout(dropout: float | int | Sequence[float | int], blocks: int) -> tuple[float, ...]:
    if isinstance(dropout, Sequence):
        if len(dropout) != blocks:
            rule = f"needs one number for all blocks, or one for each of them ({blocks})"
            raise ArgumentError("dropout", rule, list(dropout), f"dropout: {[0.25] * blocks}")
        return tuple(dropout_rate("dropout", rate) for rate in dropout)
    return (dropout_rate("dropout", dropout),) * blocks
