"""The contract of data sources: `Source.open` finds the files, `Raw` identifies the rows, and reads them on demand."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moebius.kit.errors import ArgumentError

MOST_DRAWN = 1_000_000
"""Most rows, or rows of a class, that a source draws."""
LARGEST_DRAWN = 4096
"""Largest height and width of images that a source draws, in pixels."""


class RawRow(NamedTuple):
    """One row before decoding.

    Arguments:
        image: the bytes of an image file, its path, or a uint8 array (height, width[, 3]); None where it is missing.
        label: position or name of the class; or (height, width) positions, one for each pixel, −100 where a pixel has
            no class; None where it is missing.
        file: name of the file that holds the row, for error messages.
        number: number of the row in that file, from 0; None where the file is the image itself.
    """

    image: bytes | Path | np.ndarray | None
    label: int | str | np.ndarray | None
    file: str
    number: int | None = None

    @property
    def where(self) -> str:
        """File and number of the row, for error messages."""
        return self.file if self.number is None else f"{self.file}: row {self.number}"


@dataclass(frozen=True)
class RawRows:
    """The rows of one split, read while they are iterated over.

    Arguments:
        count: number of rows.
        iterate: starts a new pass over the rows; every pass gives the same ones.

    Example:
        >>> rows = RawRows(1, lambda: [RawRow(np.zeros((8, 8), np.uint8), 0, "zeros", 0)])
        >>> len(rows), [row.label for row in rows]
        (1, [0])
    """

    count: int
    iterate: Callable[[], Iterable[RawRow]]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[RawRow]:
        return iter(self.iterate())


class Contents(NamedTuple):
    """The classes and the rows of a set.

    Arguments:
        classes: names of the classes; a label of the rows is one of them, or a position among them.
        train: rows to train on.
        test: rows to test on.
    """

    classes: tuple[str, ...]
    train: RawRows
    test: RawRows


class Raw(NamedTuple):
    """A set whose files are found, and whose rows are not read yet.

    Arguments:
        identity: text that is the same if and only if the rows are: `hash_content` of the files, with the source's kind
            and all options that change rows, classes or splits. It is the key of the cache file, so that two sources
            must never share one.
        read: reads the rows, as `Contents`, or as a `Table` for a source that is one; called only where the cache does
            not hold them.
    """

    identity: str
    read: Callable[[], Any]


class Source(ABC):
    """The contract of a data source: a set of images with a name; for a table see `TableSource`.

    A source is one file in the room `data.sources`, or a class that another distribution or `mb.register` adds to it.
    The options of a recipe are the arguments of its constructor.

    Arguments:
        name: short name of the set ("mnist"), which becomes the name of the domain; a read-only attribute.

    Example:
        >>> class Zeros(Source):
        ...     name = "zeros"
        ...     def open(self, data_dir=None):
        ...         rows = RawRows(1, lambda: [RawRow(np.zeros((8, 8), np.uint8), 0, "zeros", 0)])
        ...         return Raw(hash_content([], "zeros"), lambda: Contents(("zero",), rows, rows))
        >>> Zeros().open().read().classes
        ('zero',)
    """

    name: str

    @abstractmethod
    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the set's files, without decoding them.

        Arguments:
            data_dir: folder with local files; None = download them. A source without files ignores it.

        Raises:
            DataError: files are missing; the message names them and the folders that were searched.
        """


def check_text(argument: str, value: str) -> str:
    """Return `value` if it is text with at least one character that is no white space."""
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(argument, "needs some text", value, f"{argument}: {argument.upper()}")
    return value


def hash_content(files: Iterable[Path], *options: object) -> str:
    """A hash of the bytes of the files, in this order, and of the options; names and dates of files do not change it.

    Example:
        >>> hash_content([], "a") == hash_content([], "b")
        False
    """
    digest = hashlib.sha256(repr(options).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
