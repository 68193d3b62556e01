"""One picture (bytes of a file, a path, or an array) → uint8 channels."""

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
from moebius.kit.files import is_plain_file

Color = Literal["grey", "rgb"]
MODES = {"grey": ("L", 1), "rgb": ("RGB", 3)}
# What browsers and cameras write, and old data sets. Pillow starts another program for some formats, and none of these.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
# Where files say how to turn a picture; Pillow turns those of TIFF by itself.
TURNED_BY = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def count_channels(color: str) -> int:
    """Number of channels of a colour: 1 for "grey", 3 for "rgb".

    Raises:
        ArgumentError: another colour.
    """
    if color not in MODES:
        raise ArgumentError("color", "must be grey or rgb", color, "color: grey")
    return MODES[color][1]


def convert_picture(
    picture: bytes | Path | np.ndarray, size: int, color: str
) -> UInt8[np.ndarray, "channels size size"]:
    """Decode a picture, turn it upright, convert its colour, then resize it.

    Grey is ITU-R 601 luma, L = (19595 R + 38470 G + 7471 B + 2¹⁵) / 2¹⁶, rounded down. A grey picture becomes RGB by
    repetition of its channel. Pixels that are transparent, wholly or in part, lie on white. The resize is bilinear,
    with antialiasing where it shrinks, and does not keep the aspect ratio of a picture that is not square.

    Arguments:
        picture: bytes of an image file, its path, or a uint8 array (height, width[, 3]).
        size: height and width of the result, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Raises:
        ValueError: what is not transparent is as white as the background, so that nothing of the picture would be left.
        ValueError, OSError, SyntaxError, …: any exception that Pillow raises for bytes that are no complete image.
    """
    image = _open_picture(picture)
    if TURNED_BY & image.info.keys():
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = _in_eight_bits(image)
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) have no fixed range")
    if image.has_transparency_data:
        image = _on_white(image.convert("RGBA"))
    mode, channels = MODES[color]
    image = image.convert(mode)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def read_image(path: Path | str, size: int, color: str = "grey") -> UInt8[Tensor, "channels size size"]:
    """Read one image file as data sets are read: decoded, converted to the colour, and resized.

    Arguments:
        path: an image file of one of `FORMATS`.
        size: height and width of the result, in pixels.
        color: "grey" (1 channel) or "rgb" (3).

    Returns:
        (channels, size, size), 0 … 255.

    Raises:
        ArgumentError: an unknown colour.
        DataError: the file is missing, or is no complete image.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (2, 2), (255, 0, 0)).save(path)
        >>> read_image(path, size=1).tolist()
        [[[76]]]
    """
    count_channels(color)
    path = Path(path)
    if not is_plain_file(path):
        raise DataError(f"{path}: there is no such image file", "check the path of the image")
    return torch.from_numpy(np.array(convert_or_raise(path, size, color, str(path))))


def convert_or_raise(
    picture: bytes | Path | np.ndarray, size: int, color: str, where: str
) -> UInt8[np.ndarray, "channels size size"]:
    """Convert a picture as `convert_picture` does; a failure becomes a DataError whose message begins with `where`."""
    try:
        return convert_picture(picture, size, color)
    # On bad bytes Pillow's decoders raise many types: OSError, SyntaxError, struct.error, zlib.error, KeyError …
    except Exception as error:
        reason = "no image in any known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise DataError(f"{where}: the image cannot be decoded: {reason}", "replace the image, or remove it") from error


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """The upper eight of the sixteen bits; Pillow clips them to 255 in some versions and scales in others."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _on_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    if alpha.getbbox() is not None and flat.convert("L").getextrema() == (255, 255):
        raise ValueError("it is white where it is not transparent, and transparent pixels become white")
    warnings.warn("transparent pixels of images become white", stacklevel=2)
    return flat


def _open_picture(picture: bytes | Path | np.ndarray) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    with warnings.catch_warnings():
        # Warnings about unusual metadata do not concern the pixels, and a set of millions of images would repeat them.
        warnings.simplefilter("ignore", UserWarning)
        image = open_known_format(picture if isinstance(picture, bytes) else picture.read_bytes())
        image.load()
    return image


def open_known_format(picture: bytes) -> Image.Image:
    """The picture in the bytes of a file of one of `FORMATS`, whose size is read and whose pixels are not."""
    Image.init()
    return Image.open(io.BytesIO(picture), formats=[name for name in FORMATS if name in Image.OPEN])
