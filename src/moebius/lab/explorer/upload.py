"""What is looked at of an uploaded picture before it is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from PIL import Image

from moebius.kit.errors import DataError
from moebius.lab.data.picture import open_known_format

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
        DataError: the file is no picture of a known format, or has more than `MOST_PIXELS`.

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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size is checked here
            with open_known_format(picture) as image:
                return image.size
    # On bad bytes Pillow's plugins raise many types.
    except Exception as error:
        reason = "no image in any known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        fix = "choose a PNG, JPEG or WebP file"
        raise DataError(f"{name}: the image cannot be decoded: {reason}", fix) from None
