"""What a source gives: rows not yet decoded, and an identity that is cheap to get."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from moebius.kit.errors import ArgumentError


class Row(NamedTuple):
    """One undecoded row.

    Arguments:
        image: the bytes of an image file, its path, a uint8 array (height, width[, 3]), or None where it is missing.
        label: index or name of the class, None where it is missing.
        file: the file it stands in.
        number: which row of that file, from 0; None where the file is the image itself.
    """

    image: bytes | Path | np.ndarray | None
    label: int | str | None
    file: str
    number: int | None = None

    @property
    def where(self) -> str:
        """File and row, for messages."""
        return self.file if self.number is None else f"{self.file}: row {self.number}"


@dataclass(frozen=True)
class Rows:
    """A split that is read when iterated.

    Arguments:
        count: how many rows the iterator gives.
        iterate: starts a new pass over the rows.
    """

    count: int
    iterate: Callable[[], Iterable[Row]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        return iter(self.iterate())


class Contents(NamedTuple):
    """Names of the classes, and both splits."""

    classes: tuple[str, ...]
    train: Rows
    test: Rows


class Raw(NamedTuple):
    """A source that has been found.

    Arguments:
        identity: the same text if and only if the rows are the same (a hash of the files' bytes and of the options).
        read: gives the rows; called only if they are not in the cache.
    """

    identity: str
    read: Callable[[], Contents]


class Source(ABC):
    """A named set of images: one file in the room `data.sources`.

    Arguments:
        name: short name of the domain ("mnist"), a read-only attribute of every source.
    """

    name: str

    @abstractmethod
    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the files, in the folder `data_dir` if the source reads files and one is given.

        Raises:
            DataError: when there are none; it names what was looked for and where.
        """


def text(argument: str, value: str) -> str:
    """`value` if it is text of at least one character."""
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(argument, "needs some text", value)
    return value


def identify(files: Iterable[Path], *options: object) -> str:
    """A hash of the files' bytes, in order, and of the options: renaming or touching a file does not change it.

    Example:
        >>> identify([], "a") == identify([], "b")
        False
    """
    total = hashlib.sha256(repr(options).encode())
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
