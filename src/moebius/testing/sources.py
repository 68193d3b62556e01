"""The contract of data sources: a cheap identity, and rows of two splits or a table; needs the extra `lab`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from moebius.kit.extras import lab
from moebius.testing._contract import require
from moebius.testing._run import run_checks
from moebius.testing._subject import Subject


def check_source(source: Callable[..., Any], **arguments: Any) -> None:
    """Hold a data source to the contract of the room `data.sources`: every function of `CHECKS`.

    Arguments:
        source: the class.
        arguments: for the constructor, such as the path of files.

    Raises:
        ContractError: the first rule that the source breaks.

    Example:
        >>> from moebius.lab.data.sources import Textures
        >>> check_source(Textures, rows_per_class=5)

    Reference: ours.
    """
    run_checks(CHECKS, Subject("data.sources", source, arguments))


def is_a_source_with_a_name(subject: Subject) -> None:
    """It is a `Source` whose `name` is a text that is not empty."""
    source = subject.make()
    require(isinstance(source, lab("data.raw", "Source")), "is no Source", "class …(Source)")
    require(isinstance(source.name, str) and bool(source.name.strip()), f"has the name {source.name!r}", 'name = "…"')


def has_the_same_identity_for_the_same_rows(subject: Subject) -> None:
    """Opened twice it has the same identity, a text: the cache finds its rows by it."""
    first, second = (subject.make().open().identity for _ in range(2))
    require(isinstance(first, str) and bool(first), f"has the identity {first!r}, needs a text")
    require(first == second, "has another identity when opened again", "identify(files, …options)")


def reads_the_same_rows_again(subject: Subject) -> None:
    """Each split gives as many rows as it says, the same in a second pass and for a second object."""
    passes = [_read(subject) for _ in range(2)]
    if _is_table(passes[0]):
        first, second = passes
        equal = first.features.equals(second.features) and first.targets.equals(second.targets)
        require(equal and first.categories == second.categories, "gives another table when read again")
        return
    for split in ("train", "test"):
        rows, again = getattr(passes[0], split), getattr(passes[1], split)
        first, second, third = list(rows), list(rows), list(again)
        require(len(first) == len(rows), f"gives {len(first)} rows to {split} and says {len(rows)}")
        require(len(first) > 0, f"gives no row to {split}")
        for later in (second, third):
            same = len(first) == len(later) and all(map(_equal, first, later))
            require(same, f"gives other rows to {split} when read again")


def labels_rows_by_its_classes(subject: Subject) -> None:
    """A label is the place or the name of a class, or a place for each pixel; classes are different texts.

    The test has no class of its own.

    The target of a table is in every row, and none of its features.
    """
    contents = _read(subject)
    if _is_table(contents):
        require(not contents.targets.isna().all(axis=1).any(), "gives a table with rows that have no target")
        require(not {*contents.targets} & {*contents.features}, "gives a table whose features hold its target")
        return
    classes = contents.classes
    texts = isinstance(classes, tuple) and all(isinstance(name, str) for name in classes)
    require(texts and len(set(classes)) == len(classes) > 0, f"has the classes {classes!r}, needs different texts")
    for split in (contents.train, contents.test):
        for row in split:
            label = row.label
            if isinstance(label, np.ndarray):
                has_class = bool(np.isin(label, [-100, *range(len(classes))]).all())
            else:
                has_class = label in classes if isinstance(label, str) else label in range(len(classes))
            require(has_class, f"gives the label {label!r}, which is none of its {len(classes)} classes")


def gives_images_and_their_places(subject: Subject) -> None:
    """An image is the bytes of a file, a path or an array of uint8, (height, width[, 3]); each row names its file.

    A table has different names of columns, and several rows.
    """
    from pathlib import Path

    contents = _read(subject)
    if _is_table(contents):
        require(len(contents.features) == len(contents.targets) > 1, "gives a table with fewer than two rows")
        require(contents.features.columns.is_unique, "gives a table with two columns of one name")
        return
    places = []
    for split in (contents.train, contents.test):
        for row in split:
            image = row.image
            array = isinstance(image, np.ndarray) and image.dtype == np.uint8
            good = isinstance(image, bytes | Path) or (array and (image.ndim == 2 or image.shape[2:] in ((1,), (3,))))
            require(good, f"gives an image of {type(image).__name__}, needs bytes, a path or an array of uint8")
            require(bool(row.file), "gives a row without its file")
            places.append(row.where)
    require(len(set(places)) == len(places), "gives two rows the same place, or one row to both splits")


def _read(subject: Subject) -> Any:
    return subject.make().open().read()


def _is_table(contents: Any) -> bool:
    return isinstance(contents, lab("data.tables.table", "Table"))


def _equal(first: Any, second: Any) -> bool:
    first_fields, second_fields = first._asdict(), second._asdict()
    same = [np.array_equal(first_fields.pop(name), second_fields.pop(name)) for name in ("image", "label")]
    return all(same) and first_fields == second_fields


CHECKS = (
    is_a_source_with_a_name,
    has_the_same_identity_for_the_same_rows,
    reads_the_same_rows_again,
    labels_rows_by_its_classes,
    gives_images_and_their_places,
)
