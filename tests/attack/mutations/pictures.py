"""Image files of all formats with changed bytes."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, features

from moebius.lab.data.picture import read_image
from mutations.trials import Entry
from mutations.values import swap_bytes

# Format → suffix and modes.
FORMATS = {
    "PNG": (".png", ["L", "LA", "RGB", "RGBA", "P", "1", "I;16"]),
    "JPEG": (".jpg", ["L", "RGB", "CMYK"]),
    "GIF": (".gif", ["L", "P"]),
    "BMP": (".bmp", ["1", "L", "RGB", "P"]),
    "TIFF": (".tif", ["1", "L", "LA", "RGB", "RGBA", "I;16", "F"]),
    "PPM": (".ppm", ["1", "L", "RGB"]),
    "WEBP": (".webp", ["RGB", "RGBA"]),
}


def make_pictures() -> dict[str, tuple[str, bytes]]:
    """Name of a picture → its suffix and its bytes."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {}
    for kind, (suffix, modes) in FORMATS.items():
        for mode in modes if kind != "WEBP" or features.check("webp") else []:
            if mode == "I;16":
                image = Image.fromarray(levels[..., 0].astype(np.uint16) * 200)
            else:
                image = Image.fromarray(levels).convert("RGB" if mode == "CMYK" else "RGBA").convert(mode)
            buffer = io.BytesIO()
            options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
            image.save(buffer, kind, **options)
            pictures[f"{kind} {mode}"] = suffix, buffer.getvalue()
    return pictures


class Pictures(Entry):
    """Single files, as `moebius predict` reads them."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.pictures = make_pictures()

    def mutate(self, draw: random.Random) -> str:
        """Change some bytes of a picture."""
        name = draw.choice(sorted(self.pictures))
        suffix, content = self.pictures[name]
        content, change = swap_bytes(content, draw)
        self.path = self.folder / f"picture{suffix}"
        self.path.write_bytes(content)
        self.size, self.color = draw.choice([1, 8, 31]), draw.choice(["grey", "rgb"])
        return f"{name}: {change}"

    def call(self) -> None:
        """Read it."""
        read_image(self.path, self.size, self.color)
