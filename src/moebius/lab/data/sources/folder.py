"""Images in local folders, one folder per class."""

from pathlib import Path

import numpy as np

from moebius.kit.commands import move_aside
from moebius.kit.errors import DataError
from moebius.kit.files import is_plain_file
from moebius.lab.data.raw import Contents, Raw, RawRow, RawRows, Source, check_text, hash_content
from moebius.lab.data.stratify import check_share, mark_test_rows

SUFFIXES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Folder(Source):
    """Images in class folders: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png, or PATH/CLASS/*.png.

    In the second layout, a share of every class is held out as the test split; it is the same in every run. The name of
    a class is the name of its folder. Hidden files and files without the suffix of an image format are ignored.
    Transparent pixels lie on white.

    Arguments:
        path: the folder; a relative path is searched in the current folder, then in the data folder.
        share: share of each class to test on in the second layout, strictly between 0 and 1.
        name: short name of the domain; None = the name of the folder.

    Raises:
        ArgumentError: an empty path, or a share that does not lie between 0 and 1.

    Example:
        >>> Folder("pictures/flowers").name
        'flowers'

    Reference: ours.
    """

    def __init__(self, path: str, share: float = 0.2, name: str | None = None):
        self.path, self.share = check_text("path", path), check_share(share)
        self.name = name or Path(path).resolve().name

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the images, in the current folder or in `data_dir`."""
        folder = self._find_folder(data_dir)
        train, test = folder / "train", folder / "test"
        if train.is_dir() != test.is_dir():
            present, missing = (train, test) if train.is_dir() else (test, train)
            raise DataError(
                f"{folder}: there is a {present.name} folder but no {missing.name} folder",
                f"add {missing}, or put the class folders directly into {folder}",
            )
        folders = [train, test] if train.is_dir() else [folder]
        splits = [_find_images(split_folder) for split_folder in folders]
        files = [(path, label) for images in splits for label, paths in images.items() for path in paths]
        counts = [sum(map(len, images.values())) for images in splits]
        labels = [label for _, label in files]
        identity = hash_content((path for path, _ in files), "folder", self.share, labels, counts)
        return Raw(identity, lambda: self._read(*splits))

    def _find_folder(self, data_dir: Path | None) -> Path:
        # Where the path is absolute, joining it to data_dir gives the path itself.
        candidates = [Path(self.path).expanduser()]
        candidates += [data_dir / candidates[0]] if data_dir is not None else []
        for folder in candidates:
            if folder.is_dir():
                return folder
        places = " nor ".join(str(folder.absolute()) for folder in dict.fromkeys(candidates))
        raise DataError(
            f"{self.path}: there is no such folder of images ({places})", "path: FOLDER WITH A SUBFOLDER PER CLASS"
        )

    def _read(self, train: dict[str, list[Path]], test: dict[str, list[Path]] | None = None) -> Contents:
        """The rows of both splits; each argument maps the classes to their images.

        Arguments:
            train: the training images; all images where `test` is None.
            test: the test images; None = hold out a share of each class.
        """
        classes = tuple(train)
        if test is not None:
            return Contents(classes, _make_rows(train), _make_rows(test))
        for label, paths in train.items():
            if len(paths) < 2:
                raise DataError(
                    f"{paths[0].parent}: class {label!r} has a single image, which cannot both train and test",
                    "add images, or sort them into train and test folders",
                )
        labels = np.array([position for position, paths in enumerate(train.values()) for _ in paths])
        is_test = iter(mark_test_rows(labels, self.share))
        train_images: dict[str, list[Path]] = {label: [] for label in classes}
        test_images: dict[str, list[Path]] = {label: [] for label in classes}
        for label, paths in train.items():
            for path in paths:
                (test_images if next(is_test) else train_images)[label].append(path)
        return Contents(classes, _make_rows(train_images), _make_rows(test_images))


def _find_images(folder: Path) -> dict[str, list[Path]]:
    """The images in the class folders of `folder`, by class, both in alphabetical order."""
    images = {}
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = sorted(
            path for path in class_folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not paths:
            raise DataError(
                f"{class_folder}: the class folder holds no images",
                f"add images to {class_folder}, or move the folder elsewhere",
            )
        unreadable = next((path for path in paths if not is_plain_file(path)), None)
        if unreadable is not None:
            rule = "is no plain file, but a folder, a pipe, a device, a socket or a link that leads nowhere"
            raise DataError(f"{unreadable}: {rule}", move_aside(unreadable))
        images[class_folder.name] = paths
    if not images:
        raise DataError(f"{folder}: holds no class folders", f"sort the images into {folder}/CLASS/")
    return images


def _make_rows(images: dict[str, list[Path]]) -> RawRows:
    rows = [RawRow(path, label, str(path)) for label, paths in images.items() for path in paths]
    return RawRows(len(rows), lambda: rows)
