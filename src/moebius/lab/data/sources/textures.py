"""Ten classes of textures that a generator draws, and that need no download."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import LARGEST_DRAWN, MOST_DRAWN, Contents, Raw, RawRow, RawRows, Source, hash_content
from moebius.lab.data.stratify import check_share, mark_test_rows

MOST_PIXELS = 100_000_000
CLASSES = ("stripes", "waves", "checks", "grid", "bricks", "dots", "rings", "ramp", "blob", "noise")

# Chosen by measurement: at the default size and number of rows, a linear classifier trained to convergence reaches a
# test accuracy of 57 %, and a network of two small convolutions 89 % (57 % and 80 % at 180 rows per class).
TURN, SHIFT, CONTRAST, NOISE = 0.27, 0.35, (0.4, 1.0), (0.1, 0.4)


class Textures(Source):
    """Ten classes of textures, each image with its own phase, scale, rotation, contrast and noise.

    A pattern is a function of u, v: pixel coordinates from the image's centre, turned by up to 30°, divided by the
    pattern's period and shifted. With w(t) = |2 (t − ⌊t⌋) − 1| the triangle wave, stripes are [w(u) > ½], waves
    w(u + w(v)/2), rings w(1.5 √(u² + v²)) and so on. The pixels are ½ + contrast · (pattern − ½) + noise. Because the
    phases are random, a linear classifier classifies about half of the rows correctly, and a small convolutional
    network most of them.

    The generator uses only additions, multiplications, divisions and roots, whose results IEEE 754 fixes to the bit:
    the images are the same on any machine.

    Arguments:
        rows_per_class: images of each class, train and test together, 2 to 1,000,000.
        size: height and width, in pixels, 4 to 4096; the images of a class have at most 100 million pixels together.
        seed: seed of the images, at least 0.
        share: share of each class to test on, strictly between 0 and 1.

    Raises:
        ArgumentError: an argument outside its range.

    Example:
        >>> len(Textures(rows_per_class=10).open().read().train)
        80

    Reference:
        Ours.
    """

    name = "textures"

    def __init__(self, rows_per_class: int = 500, size: int = 8, seed: int = 0, share: float = 0.2):
        if positive_integer("rows_per_class", rows_per_class, MOST_DRAWN) < 2:
            rule = "needs at least 2, one to train and one to test on"
            raise ArgumentError("rows_per_class", rule, rows_per_class, "rows_per_class: 500")
        if positive_integer("size", size, LARGEST_DRAWN) < 4:
            raise ArgumentError("size", "needs at least 4 pixels", size, "size: 8")
        if rows_per_class * size**2 > MOST_PIXELS:
            rule = f"needs at most {MOST_PIXELS:,} pixels in the images of a class, with size {size}"
            raise ArgumentError("rows_per_class", rule, rows_per_class, f"rows_per_class: {MOST_PIXELS // size**2}")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ArgumentError("seed", "needs a whole number of at least 0", seed, "seed: 0")
        self.rows_per_class, self.size, self.seed, self.share = rows_per_class, size, seed, check_share(share)

    def open(self, data_dir: Path | None = None) -> Raw:
        """Identify the set. The images are drawn when they are read, and `data_dir` is ignored."""
        identity = hash_content([], "textures", 1, self.rows_per_class, self.size, self.seed, self.share)
        return Raw(identity, self._read)

    def _read(self) -> Contents:
        labels = np.repeat(np.arange(len(CLASSES)), self.rows_per_class)
        images = np.concatenate([draw_texture(name, self.rows_per_class, self.size, self.seed) for name in CLASSES])
        is_test = mark_test_rows(labels, self.share)
        rows = [
            RawRow(image, int(label), "textures", t)
            for t, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        train = [row for row, held_out in zip(rows, is_test, strict=True) if not held_out]
        test = [row for row, held_out in zip(rows, is_test, strict=True) if held_out]
        return Contents(CLASSES, RawRows(len(train), lambda: train), RawRows(len(test), lambda: test))


def draw_texture(name: str, rows: int, size: int, seed: int) -> UInt8[np.ndarray, "T size size"]:
    """Draw images of one texture.

    Arguments:
        name: one of CLASSES.
        rows: T, the number of images.
        size: height and width, in pixels.
        seed: the same seed draws the same images.

    Returns:
        (T, size, size), 0 … 255.
    """
    generator = np.random.default_rng([seed, CLASSES.index(name)])

    def draw_between(low: float, high: float) -> Float[np.ndarray, "T 1 1"]:
        return low + (high - low) * generator.random((rows, 1, 1))

    coordinates = (np.arange(size) + 0.5) / size - 0.5
    x, y = coordinates[None, None, :], coordinates[None, :, None]
    # A rotation without trigonometric functions, whose last bits differ between machines:
    # cos = (1 − t²)/(1 + t²), sin = 2t/(1 + t²), with t the tangent of half the angle.
    tangent = draw_between(-TURN, TURN)
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    frequency = draw_between(1.7, 2.6)
    u = frequency * (cosine * x - sine * y) + draw_between(-SHIFT, SHIFT)
    v = frequency * (sine * x + cosine * y) + draw_between(-SHIFT, SHIFT)
    pattern = _draw_pattern(name, u, v, generator.random((rows, size, size)))
    # The sum of three uniform numbers is nearly normal, and takes no logarithm, as a normal generator does.
    noise = generator.random((3, rows, size, size)).sum(0) - 1.5
    pixels = 0.5 + draw_between(*CONTRAST) * (pattern - 0.5) + draw_between(*NOISE) * noise
    return np.floor(np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def _draw_pattern(
    name: str,
    u: Float[np.ndarray, "T size size"],
    v: Float[np.ndarray, "T size size"],
    grain: Float[np.ndarray, "T size size"],
) -> Float[np.ndarray, "T size size"]:
    """Values of a texture in [0, 1] at the coordinates u, v; `grain` is uniform noise, the class "noise" itself."""
    match name:
        case "stripes":
            return (_wave(u) > 0.5).astype(float)
        case "waves":
            return _wave(u + 0.5 * _wave(v))
        case "checks":
            return ((_wave(u) > 0.5) != (_wave(v) > 0.5)).astype(float)
        case "grid":
            return np.maximum(_wave(u), _wave(v))
        case "bricks":
            return np.maximum(_wave(v), _wave(u / 2 + 0.5 * (np.floor(v) % 2)))
        case "dots":
            return np.minimum(_wave(u), _wave(v))
        case "rings":
            return _wave(1.5 * np.sqrt(u * u + v * v))
        case "ramp":
            return np.clip(0.5 + u / 2, 0, 1)
        case "blob":
            return 1 / (1 + 3 * (u * u + v * v))
        case _:
            return grain


def _wave(t: Float[np.ndarray, "T size size"]) -> Float[np.ndarray, "T size size"]:
    """The triangle wave of period 1 in [0, 1]."""
    return np.abs(2 * (t - np.floor(t)) - 1)
