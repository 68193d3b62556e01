"""Sets combined into one: labels offset in order, a domain each."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.cache import Decoded, cached_set
from moebius.lab.data.picture import channels_of
from moebius.lab.data.raw import Source
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import keep_classes


def load_sets(
    sources: Sequence[Source],
    size: int,
    color: str = "grey",
    train_rows: int | None = None,
    test_rows: int | None = None,
    validation_rows: int = 0,
    classes: Sequence[str | int] | None = None,
    data_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
) -> Dataset:
    """Read sets of images, decoded once and then from the cache, and combine them.

    Set d's labels are offset by the number of classes of the sets before it, and its rows have domain d. With several
    sets a class is called as its set and itself ("mnist 3", "cifar10 cat").

    Arguments:
        sources: one or more; each becomes a domain.
        size: height and width that all images get, in pixels.
        color: "grey" (1 channel) or "rgb" (3).
        train_rows: how many rows to train on, drawn at random from all sets together, always the same; None = all.
        test_rows: the same for the test split.
        validation_rows: how many training rows to hold out. They do not depend on `train_rows`, and are no part of it.
        classes: names or positions of the classes to keep, among the combined ones; labels then are positions in it.
            None = all.
        data_dir: folder with files in the hub's layout; None = download.
        cache_dir: where decoded images are kept; None = `$XDG_CACHE_HOME/moebius`, or `~/.cache/moebius`.

    Raises:
        ArgumentError: for numbers of rows that cannot be, unknown classes, or a set given twice.
        DataError: for files that are missing, and for rows that are broken or wrongly labelled.

    Example:
        >>> import tempfile
        >>> from moebius.lab.data.sources.digits import Digits
        >>> data = load_sets([Digits()], size=8, cache_dir=tempfile.mkdtemp())
        >>> len(data.train), len(data.test), data.facts["classes"]
        (1438, 359, 10)
    """
    if not sources:
        raise ArgumentError("sets", "needs at least one set", [], "sets: [{kind: digits}]")
    if size < 1:
        raise ArgumentError("size", "must be at least 1 pixel", size, "size: 32")
    channels_of(color)
    for name, value in (("train_rows", train_rows), ("test_rows", test_rows)):
        if value is not None and value < 1:
            raise ArgumentError(name, "must be at least 1, or null for all rows", value, f"{name}: null")
    if validation_rows < 0:
        raise ArgumentError("validation_rows", "must be at least 0", validation_rows, "validation_rows: 0")
    folder = Path(data_dir) if data_dir is not None else None
    cache = Path(cache_dir) if cache_dir is not None else None

    parts: list[Decoded] = []
    for position, source in enumerate(sources):
        part = cached_set(source, size, color, folder, cache)
        if any(part.digest == other.digest for other in parts):
            raise ArgumentError("sets", "must differ", source.name, f"take set {position + 1} out, or name other files")
        parts.append(part)
    domains = _unique([source.name for source in sources])
    names = tuple(
        name if len(parts) == 1 else f"{domain} {name}"
        for domain, part in zip(domains, parts, strict=True)
        for name in part.classes
    )
    train, test = _combine(parts, "train"), _combine(parts, "test")
    if classes is not None:
        names, train, test = keep_classes(names, domains, train, test, classes)
    validation, train = _hold_out(train, validation_rows, train_rows)
    if test_rows is not None and test_rows > len(test):
        raise ArgumentError(
            "test_rows", f"must be at most {len(test)}, the rows there are", test_rows, "test_rows: null"
        )
    if test_rows is not None and test_rows < len(test):
        test = test.take(_drawn(len(test))[:test_rows].sort().values)
    choice = (names, domains, size, color, train_rows, test_rows, validation_rows)
    content = repr(([part.digest for part in parts], choice)).encode()
    return Dataset(train, validation, test, names, domains, hashlib.sha256(content).hexdigest())


def _combine(parts: list[Decoded], split: str) -> Split:
    images, labels, domains, offset = [], [], [], 0
    for position, part in enumerate(parts):
        images.append(part.tensors[f"{split}.images"])
        labels.append(part.tensors[f"{split}.labels"] + offset)
        domains.append(torch.full_like(labels[-1], position))
        offset += len(part.classes)
    # A single set stays memory-mapped.
    return Split(images[0] if len(images) == 1 else torch.cat(images), torch.cat(labels), torch.cat(domains))


def _hold_out(train: Split, validation_rows: int, train_rows: int | None) -> tuple[Split | None, Split]:
    total = len(train)
    if validation_rows >= total:
        rule = f"must leave rows to train on, of {total}"
        raise ArgumentError("validation_rows", rule, validation_rows, "validation_rows: 0")
    left = total - validation_rows
    if train_rows is not None and train_rows > left:
        rule = f"must be at most {left}, the rows there are without validation rows"
        raise ArgumentError("train_rows", rule, train_rows, "train_rows: null")
    if left == total and train_rows in (None, total):
        return None, train
    order = _drawn(total)
    held, kept = order[:validation_rows], order[validation_rows:][:train_rows]
    validation = train.take(held.sort().values) if validation_rows else None
    return validation, train.take(kept.sort().values)


def _drawn(total: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).permutation(total))


def _unique(names: list[str]) -> tuple[str, ...]:
    """The names, those that are taken already with the first free number behind."""
    taken: list[str] = []
    for name in names:
        free, number = name, 2
        while free in taken:
            free, number = f"{name} {number}", number + 1
        taken.append(free)
    return tuple(taken)
