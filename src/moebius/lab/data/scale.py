"""The scale of pixels: the numbers that a model gets for the values 0 … 255 of an image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from moebius.kit.errors import ArgumentError

ScaleKind = Literal["unit", "raw", "standardised", "signed"]
# Images that are counted at once.
_AT_ONCE = 4096


@dataclass(frozen=True)
class PixelScale:
    """From pixels in [0, 1] to the inputs of a model; for a pixel value v in 0 … 255, x = v/255:

    - unit: x, in [0, 1];
    - raw: 255 x, the pixel value itself;
    - signed: 2x − 1, in [−1, 1];
    - standardised: (x − mean) / deviation of the image's channel, measured on all pixels of the training rows.

    Augmentations are defined on [0, 1], so they come before the scale.

    Arguments:
        kind: one of these.
        mean, deviation: of each channel, in x; of kind standardised alone. `measure` finds them.

    Example:
        >>> PixelScale("raw")(torch.tensor([0.0, 0.2, 1.0]))
        tensor([  0.,  51., 255.])
        >>> PixelScale("signed")(torch.tensor([0.0, 0.2, 1.0]))
        tensor([-1.0000, -0.6000,  1.0000])

    Reference: ours.
    """

    kind: str = "unit"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self):
        check_scale(self.kind)

    def __call__(self, images: Float[Tensor, "T ..."]) -> Float[Tensor, "T ..."]:
        """Scale images: (T, channels, height, width), or any shape for a single channel; values in [0, 1]."""
        if self.kind == "raw":
            return images * 255
        if self.kind == "signed":
            return images * 2 - 1
        if self.kind == "standardised":
            mean, deviation = (self._by_channel(values, images) for values in (self.mean, self.deviation))
            return (images - mean) / deviation
        return images

    def _by_channel(self, values: tuple[float, ...], images: Tensor) -> Tensor:
        tensor = torch.tensor(values, dtype=images.dtype, device=images.device)
        return tensor.view(-1, 1, 1) if images.ndim == 4 else tensor

    @classmethod
    def measure(cls, kind: str, images: UInt8[Tensor, "T ..."]) -> "PixelScale":
        """The scale of a kind; mean and deviation of each channel are those of `images`.

        The sums are of whole numbers, so they are exact and the same on every machine. A channel whose pixels are all
        equal has deviation 1.

        Arguments:
            kind: unit, raw, standardised or signed.
            images: the training rows, 0 … 255; axis 1 holds the channels where there are four axes, and all pixels are
                one channel otherwise.

        Raises:
            ArgumentError: there is no such kind.

        Example:
            >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
            >>> PixelScale.measure("standardised", images)
            PixelScale(kind='standardised', mean=(0.5,), deviation=(0.5,))
        """
        if kind != "standardised":
            return cls(kind)
        by_channel = images if images.ndim == 4 else images.flatten(1)[:, None]
        counts = torch.zeros(by_channel.shape[1], 256, dtype=torch.int64)
        for piece in by_channel.split(_AT_ONCE):
            for channel, pixels in enumerate(piece.unbind(1)):
                counts[channel] += torch.bincount(pixels.flatten(), minlength=256).cpu()
        pixel = torch.arange(256)
        total, first, second = counts.sum(1), (counts * pixel).sum(1), (counts * pixel**2).sum(1)
        mean = first.double() / total
        deviation = (second.double() / total - mean**2).clamp(min=0).sqrt()
        deviation = torch.where((counts > 0).sum(1) > 1, deviation, 255.0)
        return cls(kind, tuple((mean / 255).tolist()), tuple((deviation / 255).tolist()))

    def to_values(self) -> dict[str, Any]:
        """Plain values, from which `from_values` makes the scale again."""
        measured = {"mean": [*self.mean], "deviation": [*self.deviation]} if self.kind == "standardised" else {}
        return {"kind": self.kind, **measured}

    @classmethod
    def from_values(cls, values: Mapping[str, Any] | None) -> "PixelScale":
        """The scale of `to_values`; unit for None.

        Example:
            >>> PixelScale.from_values({"kind": "raw"})
            PixelScale(kind='raw', mean=(), deviation=())
        """
        if values is None:
            return UNIT
        return cls(values["kind"], tuple(values.get("mean", ())), tuple(values.get("deviation", ())))


def check_scale(kind: Any) -> None:
    """Check that there is a scale of this kind.

    Raises:
        ArgumentError: there is none.
    """
    kinds = get_args(ScaleKind)
    if kind not in kinds:
        raise ArgumentError("scale", f"needs one of {', '.join(kinds)}", kind, "scale: unit")


UNIT = PixelScale()
