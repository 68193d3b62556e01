"""Several sets of images combined into one data set, in which every set is a domain; or one table."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from moebius.kit.errors import ArgumentError
from moebius.kit.names import check_names
from moebius.lab.data.cache import Decoded, load_decoded
from moebius.lab.data.picture import count_channels
from moebius.lab.data.raw import Source
from moebius.lab.data.row_draws import check_rows, count_validation_rows, draw_order
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import keep_classes
from moebius.lab.data.tables.table import TableSource


def load_sets(
    sources: Sequence[Source],
    size: int,
    color: str = "grey",
    train_rows: int | None = None,
    test_rows: int | None = None,
    validation_rows: int = 0,
    validation: float | None = None,
    classes: Sequence[str | int] | None = None,
    data_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    scale: str = "unit",
    draw: int = 0,
) -> Dataset:
    """Load sets of images and combine them; a set is decoded the first time and read from the cache afterwards.

    The labels of set d are offset by the number of classes of the sets before it, and its rows have domain d. With
    several sets, the name of a class begins with the name of its set ("mnist 3", "cifar10 cat").

    A table stands alone, and has no `size`, no `color` and no `scale`: see `moebius.lab.data.tables.load_table`.

    Arguments:
        sources: one or more sets; each becomes a domain.
        size: height and width of all images, in pixels.
        color: "grey" (1 channel) or "rgb" (3).
        train_rows: number of rows to train on, drawn at random over all sets with a fixed seed; None = all.
        test_rows: number of test rows, drawn likewise; None = all.
        validation_rows: number of training rows to hold out. Which ones does not depend on `train_rows`, and
            `train_rows` does not count them.
        validation: share of the training rows to hold out, strictly between 0 and 1, in the place of
            `validation_rows`; None = as many as `validation_rows` says.
        classes: names or positions of the combined classes to keep; labels become positions in this list. None = all.
        data_dir: folder with files in the hub's layout; None = download.
        cache_dir: folder of decoded images; None = `$XDG_CACHE_HOME/moebius`, or `~/.cache/moebius`.
        scale: of the pixels that models get: unit, raw, standardised or signed, as `PixelScale` says.
        draw: number of the random choice of validation rows and training rows, at least 0; that of test rows is one for
            all. The fingerprint tells draws apart.

    Raises:
        ArgumentError: a number out of its range, an unknown class, or the same set twice.
        DataError: files are missing, a row is broken or wrongly labelled, or a name is empty or not printable.

    Example:
        >>> import tempfile
        >>> from moebius.lab.data.sources.digits import Digits
        >>> data = load_sets([Digits()], size=8, cache_dir=tempfile.mkdtemp())
        >>> len(data.train), len(data.test), data.facts["classes"]
        (1438, 359, 10)
    """
    if not sources:
        raise ArgumentError("sets", "needs at least one set", [], "sets: [{kind: digits}]")
    check_names("set", [source.name for source in sources])
    if any(isinstance(source, TableSource) for source in sources):
        from moebius.lab.data.tables.load_table import load_table

        if len(sources) > 1:
            names = [source.name for source in sources]
            raise ArgumentError("sets", "must be one set where it is a table", names, "one recipe for each set")
        choice = (train_rows, test_rows, validation_rows, validation, classes, data_dir, draw)
        table = load_table(sources[0], *choice)
        return table.with_scale(scale)
    if size < 1:
        raise ArgumentError("size", "must be at least 1 pixel", size, "size: 32")
    count_channels(color)
    check_rows("train_rows", train_rows)
    check_rows("test_rows", test_rows)
    data_folder = Path(data_dir) if data_dir is not None else None
    cache_folder = Path(cache_dir) if cache_dir is not None else None

    sets: list[Decoded] = []
    for position, source in enumerate(sources):
        decoded = load_decoded(source, size, color, data_folder, cache_folder)
        if any(decoded.digest == earlier.digest for earlier in sets):
            fix = f"remove set {position + 1} from the list, or name other files"
            raise ArgumentError("sets", "must differ from each other", source.name, fix)
        sets.append(decoded)
    domains = _number_repeats([source.name for source in sources])
    names = tuple(
        name if len(sets) == 1 else f"{domain} {name}"
        for domain, decoded in zip(domains, sets, strict=True)
        for name in decoded.classes
    )
    train, test = _combine_sets(sets, "train"), _combine_sets(sets, "test")
    if train.labels.ndim > 1 and classes is not None:
        rule = "must be null where each pixel has a class"
        raise ArgumentError("classes", rule, list(classes), "classes: null")
    if classes is not None:
        names, train, test = keep_classes(names, domains, train, test, classes)
    validation_rows = count_validation_rows(len(train), validation, validation_rows)
    held_out, train = _hold_out(train, validation_rows, train_rows, draw)
    check_rows("test_rows", test_rows, len(test), "the number of test rows")
    if test_rows is not None and test_rows < len(test):
        test = test.take(draw_order(len(test))[:test_rows].sort().values)
    # The first draw adds nothing: data from before there were several keep their fingerprint.
    choice = (names, domains, size, color, train_rows, test_rows, validation_rows, *([draw] if draw else []))
    content = repr(([decoded.digest for decoded in sets], choice)).encode()
    data = Dataset(train, held_out, test, names, domains, hashlib.sha256(content).hexdigest())
    return data.with_scale(scale)


def _combine_sets(sets: list[Decoded], split: str) -> Split:
    """One split ("train" or "test") of all sets, with offset labels."""
    images, labels, domains, offset = [], [], [], 0
    for domain, decoded in enumerate(sets):
        images.append(decoded.tensors[f"{split}.images"])
        of_set = decoded.tensors[f"{split}.labels"]
        # A pixel without a class stays without one.
        labels.append(torch.where(of_set < 0, of_set, of_set + offset))
        domains.append(torch.full((len(of_set),), domain, dtype=torch.int64))
        offset += len(decoded.classes)
    # The images of a single set are not copied, and stay memory-mapped.
    return Split(images[0] if len(images) == 1 else torch.cat(images), torch.cat(labels), torch.cat(domains))


def _hold_out(train: Split, validation_rows: int, train_rows: int | None, draw: int) -> tuple[Split | None, Split]:
    """The validation split, if any, and the rows to train on; both keep the order of the rows."""
    total = len(train)
    remaining = total - validation_rows
    check_rows("train_rows", train_rows, remaining, "the number of training rows that are not validation rows")
    if remaining == total and train_rows in (None, total):
        return None, train
    order = draw_order(total, draw)
    validation_index, train_index = order[:validation_rows], order[validation_rows:][:train_rows]
    validation = train.take(validation_index.sort().values) if validation_rows else None
    return validation, train.take(train_index.sort().values)


def _number_repeats(names: list[str]) -> tuple[str, ...]:
    """The names, with the first free number after each repeated one."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name} {number}", number + 1
        unique.append(candidate)
    return tuple(unique)
