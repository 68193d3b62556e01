"""Convolutional networks from an image to an output for each pixel."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.kit.arguments import positive_integer, positive_widths
from moebius.kit.errors import ArgumentError
from moebius.networks.activations import MONOTONE, activate_map, activation_named


class UNet(nn.Module):
    """Convolutions at several resolutions, each of half the size, joined again from the coarsest to the finest.

    down_0 = a(conv(x)), down_l = a(conv(pool(down_(l−1))));  up_L = down_L, up_l = a(conv([down_l, enlarge(up_(l+1))]))
    and y = conv1×1(up_0). Convolutions are 3×3 and keep the size; pooling takes the largest of 2×2 values; enlarging
    repeats values. With one resolution it is a fully convolutional network: two layers, no pooling.

    Arguments:
        channels: of the input images.
        outputs: channels of the output.
        filters: channels at each resolution, the finest first; at least one.
        activation: of all convolutions but the last, one of `MONOTONE`.

    Shapes: x (T, channels, height, width) → (T, outputs, height, width).

    Raises:
        ArgumentError: a value out of range, images with other channels, or too small for the number of resolutions.

    Example:
        >>> UNet(channels=3, outputs=5, filters=(4, 8), activation="relu")(torch.zeros(2, 3, 8, 7)).shape
        torch.Size([2, 5, 8, 7])

    Reference: Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image Segmentation; with
    one convolution where it has two, padded, and values repeated where it has transposed convolutions.
    """

    def __init__(self, channels: int, outputs: int, filters: Sequence[int], activation: str):
        super().__init__()
        self.channels, self.activation = positive_integer("channels", channels), activation
        self.filters = filters = positive_widths("filters", filters)
        activation_named(activation, MONOTONE)
        self.down = nn.ModuleList(_convolution(before, after) for before, after in pairwise([channels, *filters]))
        self.up = nn.ModuleList(_convolution(fine + coarse, fine) for fine, coarse in pairwise(filters))
        self.last = nn.Conv2d(filters[0], outputs, 1)

    def forward(self, x: Float[Tensor, "T channels height width"]) -> Float[Tensor, "T C height width"]:
        """The outputs of each pixel."""
        self._check(x)
        maps: list[Tensor] = []
        for convolution in self.down:
            x = activate_map(convolution(F.max_pool2d(x, 2) if maps else x), self.activation)
            maps.append(x)
        for convolution, fine in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            joined = torch.cat([fine, F.interpolate(x, fine.shape[-2:])], 1)
            x = activate_map(convolution(joined), self.activation)
        return self.last(x)

    def _check(self, x: Tensor) -> None:
        least = 2 ** (len(self.filters) - 1)
        if x.shape[1] != self.channels:
            rule = f"this network was built for images of {self.channels} channels, (T, {self.channels}, height, width)"
            raise ArgumentError("x", rule, tuple(x.shape), f"channels={x.shape[1]}")
        if min(x.shape[2:]) < least:
            rule = f"needs images of at least {least}×{least} pixels for {len(self.filters)} resolutions"
            fix = f"filters={list(self.filters[: min(x.shape[2:]).bit_length()])}"
            raise ArgumentError("filters", rule, tuple(x.shape), fix)

    def extra_repr(self) -> str:
        """The arguments that the shapes of the parameters do not determine."""
        return f"activation={self.activation}"


def _convolution(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)
