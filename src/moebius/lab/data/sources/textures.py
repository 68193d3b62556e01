"""Ten classes of drawn textures, which need no download."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import Contents, Raw, Row, Rows, Source, identify
from moebius.lab.data.stratify import check_share, held_out

CLASSES = ("stripes", "waves", "checks", "grid", "bricks", "dots", "rings", "ramp", "blob", "noise")

# Chosen by measuring: trained to the end, a linear classifier gets 57 % and a network of two small convolutions gets
# 89 % of the test rows right, at the default size and number of rows (57 % and 80 % at 180 rows per class).
TURN, SHIFT, CONTRAST, NOISE = 0.27, 0.35, (0.4, 1.0), (0.1, 0.4)


class Textures(Source):
    """Ten classes of textures, each image with its own phase, scale, rotation, contrast and noise.

    A pattern is a function of u, v: pixel coordinates from the image's centre, turned by up to 30°, divided by the
    pattern's period and shifted. With w(t) = |2 (t − ⌊t⌋) − 1| the triangle wave, stripes are [w(u) > ½], waves
    w(u + w(v)/2), rings w(√(u² + v²)) and so on. The pixels are ½ + contrast · (pattern − ½) + noise. Patterns overlap
    at random phases, so that a linear classifier gets about half of the rows right where a small convolutional network
    gets most.

    Only additions, multiplications, divisions and roots are used, which are exact to the bit by IEEE 754: the images
    are the same on any machine.

    Arguments:
        rows_per_class: images of each class, train and test together, at least 2.
        size: height and width, in pixels, at least 4.
        seed: another seed draws other images.
        share: share of each class to test on, 0 to 1.

    Example:
        >>> len(Textures(rows_per_class=10).open().read().train)
        80

    Reference:
        Ours.
    """

    name = "textures"

    def __init__(self, rows_per_class: int = 500, size: int = 8, seed: int = 0, share: float = 0.2):
        if positive_integer("rows_per_class", rows_per_class) < 2:
            raise ArgumentError("rows_per_class", "needs at least 2, to train and to test on", rows_per_class)
        if positive_integer("size", size) < 4:
            raise ArgumentError("size", "needs at least 4 pixels", size, "size: 8")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ArgumentError("seed", "needs a whole number of at least 0", seed, "seed: 0")
        self.rows_per_class, self.size, self.seed, self.share = rows_per_class, size, seed, check_share(share)

    def open(self, data_dir: Path | None = None) -> Raw:
        """Textures are drawn when asked for; `data_dir` is not looked at."""
        identity = identify([], "textures", 1, self.rows_per_class, self.size, self.seed, self.share)
        return Raw(identity, self._contents)

    def _contents(self) -> Contents:
        labels = np.repeat(np.arange(len(CLASSES)), self.rows_per_class)
        images = np.concatenate([draw(name, self.rows_per_class, self.size, self.seed) for name in CLASSES])
        mark = held_out(labels, self.share)
        rows = [
            Row(image, int(label), "textures", t) for t, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        train = [row for row, held in zip(rows, mark, strict=True) if not held]
        test = [row for row, held in zip(rows, mark, strict=True) if held]
        return Contents(CLASSES, Rows(len(train), lambda: train), Rows(len(test), lambda: test))


def draw(name: str, rows: int, size: int, seed: int) -> UInt8[np.ndarray, "T size size"]:
    """Draw images of one texture.

    Arguments:
        name: one of CLASSES.
        rows: T, how many.
        size: height and width, in pixels.
        seed: the same seed draws the same images.
    """
    generator = np.random.default_rng([seed, CLASSES.index(name)])

    def between(low: float, high: float) -> Float[np.ndarray, "T 1 1"]:
        return low + (high - low) * generator.random((rows, 1, 1))

    across = (np.arange(size) + 0.5) / size - 0.5
    x, y = across[None, None, :], across[None, :, None]
    # A rotation without trigonometry: cos = (1 − t²)/(1 + t²), sin = 2t/(1 + t²), t the tangent of half the angle.
    tangent = between(-TURN, TURN)
    cosine, sine = (1 - tangent * tangent) / (1 + tangent * tangent), 2 * tangent / (1 + tangent * tangent)
    frequency = between(1.7, 2.6)
    u = frequency * (cosine * x - sine * y) + between(-SHIFT, SHIFT)
    v = frequency * (sine * x + cosine * y) + between(-SHIFT, SHIFT)
    pattern = _pattern(name, u, v, generator.random((rows, size, size)))
    # The sum of three uniform numbers is close to normal, and free of the logarithms of a normal generator.
    noise = generator.random((3, rows, size, size)).sum(0) - 1.5
    pixels = 0.5 + between(*CONTRAST) * (pattern - 0.5) + between(*NOISE) * noise
    return np.floor(np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def _pattern(
    name: str,
    u: Float[np.ndarray, "T size size"],
    v: Float[np.ndarray, "T size size"],
    grain: Float[np.ndarray, "T size size"],
) -> Float[np.ndarray, "T size size"]:
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
    return np.abs(2 * (t - np.floor(t)) - 1)
