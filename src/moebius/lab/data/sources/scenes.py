"""Scenes of handwritten digits on textures with a class for each pixel: no file, no download."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import LARGEST_DRAWN, MOST_DRAWN, Contents, Raw, RawRow, RawRows, Source, hash_content
from moebius.lab.data.sources.textures import CLASSES as TEXTURES
from moebius.lab.data.sources.textures import draw_texture
from moebius.lab.data.stratify import mark_test_rows

# Ink of scikit-learn's digits, 0 … 16, from which a pixel belongs to the digit; and the height of a digit.
INK, HEIGHT = 4, 8


class Scenes(Source):
    """Real handwritten digits of 8×8 pixels at random places on drawn textures; each pixel is of a digit or of none.

    Classes are the background and the ten digits. The digits are those of kind `digits`, the textures those of kind
    `textures` at a third of their brightness. Digits of test scenes are in no training scene. A pixel belongs to a
    digit where it has a quarter of the ink or more; digits do not overlap. The task is `tokens`, with the classes
    before the pixels: {kind: tokens, channels: first}.

    Arguments:
        scenes: training and test scenes together, 10 to 1,000,000.
        size: height and width of a scene, 16 to 4096 pixels; `data.size` should be the same.
        digits: digits in a scene, from 1 to 4.
        seed: of the scenes, at least 0.

    Raises:
        ArgumentError: an argument outside its range.

    Example:
        >>> contents = Scenes(scenes=20).open().read()
        >>> next(iter(contents.train)).label.shape, contents.classes[:2]
        ((16, 16), ('background', '0'))

    Reference: ours; the digits are of Alpaydin and Kaynak, "Cascading classifiers", Kybernetika 34 (1998).
    """

    name = "scenes"
    # Conformance checks fill in the facts of smaller images.
    example: ClassVar = {"size": 2 * HEIGHT, "scenes": 40}

    def __init__(self, scenes: int = 2500, size: int = 16, digits: int = 2, seed: int = 0):
        if positive_integer("scenes", scenes, MOST_DRAWN) < 10:
            raise ArgumentError("scenes", "needs at least 10", scenes, "scenes: 2500")
        if positive_integer("size", size, LARGEST_DRAWN) < 2 * HEIGHT:
            raise ArgumentError("size", f"needs at least {2 * HEIGHT} pixels", size, f"size: {2 * HEIGHT}")
        if not 1 <= digits <= 4:
            raise ArgumentError("digits", "needs a number from 1 to 4", digits, "digits: 2")
        if isinstance(seed, bool) or seed < 0:
            raise ArgumentError("seed", "must be at least 0", seed, "seed: 0")
        self.scenes, self.size, self.digits, self.seed = scenes, size, digits, seed

    def open(self, data_dir: Path | None = None) -> Raw:
        """Identify the set. Scenes are drawn when they are read, and `data_dir` is ignored."""
        return Raw(hash_content([], "scenes", 1, self.scenes, self.size, self.digits, self.seed), self._read)

    def _read(self) -> Contents:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = bunch.images.astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
        labels = bunch.target.astype(np.int64)  # pyright: ignore[reportAttributeAccessIssue]
        is_test = mark_test_rows(labels, 0.2)
        test_count = max(1, self.scenes // 5)

        def split(count: int, chosen: np.ndarray, stream: int) -> RawRows:
            return RawRows(count, lambda: self._draw(count, images[chosen], labels[chosen], stream))

        classes = ("background", *"0123456789")
        return Contents(classes, split(self.scenes - test_count, ~is_test, 0), split(test_count, is_test, 1))

    def _draw(
        self, count: int, images: Int[np.ndarray, "N 8 8"], labels: Int[np.ndarray, " N"], stream: int
    ) -> Iterator[RawRow]:
        generator = np.random.default_rng([self.seed, stream])
        textures = [draw_texture(name, count // len(TEXTURES) + 1, self.size, self.seed + stream) for name in TEXTURES]
        backgrounds = np.concatenate(textures)[generator.permutation(len(TEXTURES) * len(textures[0]))[:count]]
        for number, background in enumerate(backgrounds):
            chosen = generator.choice(len(images), self.digits, replace=False)
            scene, classes = self._place(background // 3, images[chosen], labels[chosen], generator)
            yield RawRow(scene, classes, f"scenes, {('training', 'test')[stream]}", number)

    def _place(
        self,
        background: UInt8[np.ndarray, "size size"],
        images: Int[np.ndarray, "D 8 8"],
        labels: Int[np.ndarray, " D"],
        generator: np.random.Generator,
    ) -> tuple[UInt8[np.ndarray, "size size"], Int[np.ndarray, "size size"]]:
        """One scene: each digit in a quarter of its own, at a random place there."""
        scene, classes = background.astype(np.int64), np.zeros(background.shape, dtype=np.int64)
        half = self.size // 2
        for quarter, image, label in zip(generator.permutation(4), images, labels, strict=False):
            top, left = (half * part + generator.integers(0, half - HEIGHT + 1) for part in divmod(int(quarter), 2))
            place = slice(top, top + HEIGHT), slice(left, left + HEIGHT)
            is_ink = image >= INK
            scene[place] = np.maximum(scene[place], (image * 255 + 8) // 16)
            classes[place] = np.where(is_ink, label + 1, classes[place])
        return scene.astype(np.uint8), classes
