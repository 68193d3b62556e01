"""One image, as bytes, file or array, to uint8 channels."""

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from moebius.kit.errors import ArgumentError, DataError

Color = Literal["grey", "rgb"]
MODES = {"grey": ("L", 1), "rgb": ("RGB", 3)}


def channels_of(color: str) -> int:
    """1 for "grey", 3 for "rgb".

    Raises:
        ArgumentError: for anything else.
    """
    if color not in MODES:
        raise ArgumentError("color", "must be grey or rgb", color, "color: grey")
    return MODES[color][1]


def convert(picture: bytes | Path | np.ndarray, size: int, color: str) -> UInt8[np.ndarray, "channels size size"]:
    """Decode, turn upright, change colour, then resize.

    Grey is ITU-R 601 luma, L = (19595 R + 38470 G + 7471 B + 2¹⁵) / 2¹⁶, rounded down; grey images become RGB by
    repetition. The resize is bilinear (with antialiasing where it shrinks) and squeezes images that are not square.

    Arguments:
        picture: bytes of an image file, its path, or a uint8 array (height, width[, 3]).
        size: height and width of the result, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Raises:
        ValueError, OSError, SyntaxError, …: whatever Pillow raises for bytes that are no whole image.
    """
    image = _open(picture)
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow clips 16 bits to 255 in some versions and scales in others.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no fixed range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    mode, channels = MODES[color]
    image = image.convert(mode)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def read_image(path: Path | str, size: int, color: str = "grey") -> UInt8[Tensor, "channels size size"]:
    """Read one image file in the way that data sets are read.

    Arguments:
        path: an image file of any format that Pillow reads.
        size: height and width of the result, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Returns:
        (channels, size, size), 0 … 255.

    Raises:
        DataError: when the file is missing, or is no whole image.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (2, 2), (255, 0, 0)).save(path)
        >>> read_image(path, size=1).tolist()
        [[[76]]]
    """
    channels_of(color)
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such image file", "give the path of an image")
    return torch.from_numpy(np.array(convert_or_refuse(path, size, color, str(path))))


def convert_or_refuse(
    picture: bytes | Path | np.ndarray, size: int, color: str, where: str
) -> UInt8[np.ndarray, "channels size size"]:
    """`convert`, with whatever goes wrong told as a DataError that begins with `where`."""
    try:
        return convert(picture, size, color)
    # Pillow's decoders raise nearly anything on bad bytes (OSError, SyntaxError, struct.error, zlib.error, KeyError …).
    except Exception as error:
        reason = "no image in any known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{where}: the image cannot be decoded: {reason}", "mend the image or take it out") from error


def _open(picture: bytes | Path | np.ndarray) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    with warnings.catch_warnings():
        # Warnings on odd metadata say nothing on the pixels; a set of millions would repeat them for ever.
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(io.BytesIO(picture if isinstance(picture, bytes) else picture.read_bytes()))
        image.load()
    return image
