"""Rows as PNG pictures."""

import io

import numpy as np
import torch
from jaxtyping import Int, Shaped
from PIL import Image
from torch import Tensor

from moebius.lab.report.figures import COLOURS

# Longest side of a picture on the page, in pixels.
LONGEST = 256


def picture_bytes(pixels: Shaped[Tensor, "channels height width"]) -> bytes:
    """A row as a PNG file: grey for one channel, colours for three.

    Numbers that are no bytes go from the smallest, black, to the largest, white; those in [0, 1] as they are.

    Example:
        >>> picture_bytes(torch.zeros(1, 2, 2, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    if pixels.dtype != torch.uint8:
        values = pixels.float()
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            values = (values - low) / max(high - low, 1e-12)
        pixels = (values * 255).round().to(torch.uint8)
    array = pixels.cpu().numpy()
    return _png(Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def class_map_bytes(classes: Int[np.ndarray, "height width"]) -> bytes:
    """The class of each pixel as a PNG file, in the palette of the reports; pixels without a class are white."""
    palette = np.array([[int(colour[place : place + 2], 16) for place in (1, 3, 5)] for colour in COLOURS], np.uint8)
    array = palette[np.maximum(classes, 0) % len(COLOURS)]
    array[classes < 0] = 255
    return _png(Image.fromarray(array))


def _png(image: Image.Image) -> bytes:
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
