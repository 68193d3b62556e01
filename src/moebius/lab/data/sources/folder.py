"""Images of one's own in class subfolders."""

from pathlib import Path

import numpy as np

from moebius.kit.errors import DataError
from moebius.lab.data.raw import Contents, Raw, Row, Rows, Source, identify, text
from moebius.lab.data.stratify import check_share, held_out

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Folder(Source):
    """Images in class subfolders: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, or PATH/CLASS/*.png.

    In the second layout a share of every class, the same at each run, is held out as the test split. A class is called
    as its folder; hidden files and files that are no images by their suffix are passed over.

    Arguments:
        path: the folder; a relative one is looked for in the current folder, then in the data folder.
        share: share of each class to test on, where there are no train and test folders; 0 to 1.
        name: short name of the domain; None = the folder's.

    Example:
        >>> Folder("pictures/flowers").name
        'flowers'

    Reference: ours.
    """

    def __init__(self, path: str, share: float = 0.2, name: str | None = None):
        self.path, self.share = text("path", path), check_share(share)
        self.name = name or Path(path).resolve().name

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the images, in the current folder or in `data_dir`."""
        folder = self._find(data_dir)
        train, test = folder / "train", folder / "test"
        if train.is_dir() != test.is_dir():
            present, missing = (train, test) if train.is_dir() else (test, train)
            raise DataError(
                f"{folder}: there is {present.name} but no {missing.name} folder",
                f"add {missing}, or put the class folders directly into {folder}",
            )
        parts = [train, test] if train.is_dir() else [folder]
        images = {part: _images(part) for part in parts}
        files = [(path, label) for found in images.values() for label, paths in found.items() for path in paths]
        counts = [sum(map(len, found.values())) for found in images.values()]
        identity = identify((path for path, _ in files), "folder", self.share, [label for _, label in files], counts)
        return Raw(identity, lambda: self._contents(*images.values()))

    def _find(self, data_dir: Path | None) -> Path:
        # Joining an absolute path gives that path.
        tried = [Path(self.path).expanduser()]
        tried += [data_dir / tried[0]] if data_dir is not None else []
        for folder in tried:
            if folder.is_dir():
                return folder
        places = " nor ".join(str(folder.absolute()) for folder in dict.fromkeys(tried))
        raise DataError(
            f"{self.path}: there is no such folder of images ({places})", "path: FOLDER WITH A SUBFOLDER PER CLASS"
        )

    def _contents(self, train: dict[str, list[Path]], test: dict[str, list[Path]] | None = None) -> Contents:
        classes = tuple(train)
        if test is not None:
            return Contents(classes, _rows(train), _rows(test))
        for label, paths in train.items():
            if len(paths) < 2:
                raise DataError(
                    f"{paths[0].parent}: class {label!r} has a single image, which cannot both train and test",
                    "add images, or sort them into train and test folders",
                )
        labels = np.array([position for position, paths in enumerate(train.values()) for _ in paths])
        mark = iter(held_out(labels, self.share))
        kept: dict[str, list[Path]] = {label: [] for label in classes}
        held: dict[str, list[Path]] = {label: [] for label in classes}
        for label, paths in train.items():
            for path in paths:
                (held if next(mark) else kept)[label].append(path)
        return Contents(classes, _rows(kept), _rows(held))


def _images(folder: Path) -> dict[str, list[Path]]:
    found = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = sorted(p for p in part.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not paths:
            raise DataError(f"{part}: the class folder holds no images", f"add images or remove {part}")
        found[part.name] = paths
    if not found:
        raise DataError(f"{folder}: holds no class folders", f"sort the images into {folder}/CLASS/")
    return found


def _rows(images: dict[str, list[Path]]) -> Rows:
    rows = [Row(path, label, str(path)) for label, paths in images.items() for path in paths]
    return Rows(len(rows), lambda: rows)
