"""What is looked at of an uploaded picture before it is decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image

from moebius.kit.errors import DataError

# What browsers and cameras write. Pillow starts another program for some formats, and needs none of them here.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
# Pixels that are decoded, of a large camera: at 4 bytes each, and one picture at a time.
MOST_PIXELS = 50 * 10**6
_DECODING = Lock()


@contextmanager
def decoding(picture: bytes, name: str) -> Iterator[None]:
    """A block in which one uploaded picture is decoded; others wait.

    A small file may hold many pixels: their number is read first.

    Arguments:
        picture: the bytes of the file.
        name: of the file.

    Raises:
        DataError: the file is no picture of `FORMATS`, or has more than `MOST_PIXELS`.

    Example:
        >>> with decoding(b"GIF89a?", "a.gif"):
        ...     pass
        Traceback (most recent call last):
        moebius.kit.errors.DataError: a.gif: the image cannot be decoded: no image in any known format
          fix: choose a PNG, JPEG or WebP file
    """
    with _DECODING:
        width, height = _read_size(picture, name)
        if width * height > MOST_PIXELS:
            rule = f"{name}: needs at most {MOST_PIXELS // 10**6} million pixels, got {width} × {height}"
            raise DataError(rule, "make the picture smaller")
        yield


def _read_size(picture: bytes, name: str) -> tuple[int, int]:
    Image.init()
    formats = [each for each in FORMATS if each in Image.OPEN]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with Image.open(io.BytesIO(picture), formats=formats) as image:
                return image.size
    # On bad bytes Pillow's plugins raise many types.
    except Exception as error:
        reason = "no image in any known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        fix = "choose a PNG, JPEG or WebP file"
        raise DataError(f"{name}: the image cannot be decoded: {reason}", fix) from None
