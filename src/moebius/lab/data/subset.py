"""Selection of classes, by their names or positions."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.split import Split


def keep_classes(
    names: tuple[str, ...], domains: tuple[str, ...], train: Split, test: Split, classes: Sequence[str | int]
) -> tuple[tuple[str, ...], Split, Split]:
    """Keep the rows of some classes; labels become positions in `classes`.

    Arguments:
        names: names of all classes.
        domains: names of the combined sets.
        train, test: splits whose labels are positions in `names`.
        classes: names or positions of the classes to keep.

    Returns:
        The names of the kept classes, and both splits, whose labels are positions in these names.

    Raises:
        ArgumentError: an unknown or repeated class, or a set without rows in one of the splits.
    """
    positions = find_positions(classes, names)
    relabel = torch.full((len(names),), -1)
    relabel[positions] = torch.arange(len(positions))
    splits = []
    for split in (train, test):
        labels = relabel[split.labels]
        rows = (labels >= 0).nonzero().squeeze(1)
        kept = split.take(rows)
        for number, domain in enumerate(domains):
            if not (kept.domains == number).any():
                fix = f"add a class of {domain} to classes, or remove the set {domain}"
                raise ArgumentError("classes", f"must leave rows of {domain}", list(classes), fix)
        splits.append(replace(kept, labels=labels[rows]))
    return tuple(names[position] for position in positions), splits[0], splits[1]


def find_positions(entries: Sequence[str | int], names: tuple[str, ...], argument: str = "classes") -> list[int]:
    """The positions of classes or sets, in the order of `entries`.

    Arguments:
        entries: names or positions.
        names: names of all classes or sets.
        argument: name of the argument that holds `entries`, for error messages.

    Raises:
        ArgumentError: an unknown or repeated entry, or no entry.
    """
    positions: list[int] = []
    for entry in entries:
        position = find_position(entry, names, argument)
        if position in positions:
            raise ArgumentError(argument, "must differ from each other", list(entries), f"remove one {entry!r}")
        positions.append(position)
    if not positions:
        raise ArgumentError(argument, "needs at least one", list(entries), f"{argument}: [{names[0]}]")
    return positions


def find_position(entry: str | int, names: tuple[str, ...], argument: str = "classes") -> int:
    """The position of one class or set.

    Arguments:
        entry: its name, or the position itself.
        names: names of all classes or sets.
        argument: name of the argument that holds `entry`, for error messages.

    Raises:
        ArgumentError: no class or set has this name or position.

    Example:
        >>> find_position("ship", ("cat", "ship")), find_position(0, ("cat", "ship"))
        (1, 0)
    """
    # Text is always a name and a number always a position, because sets of digits have classes called "3".
    if isinstance(entry, str):
        if entry in names:
            return names.index(entry)
        raise ArgumentError(argument, f"must be names or positions of {argument}", entry, did_you_mean(entry, names))
    if 0 <= entry < len(names):
        return entry
    raise ArgumentError(argument, f"must be positions 0 … {len(names) - 1}", entry, f"one of {', '.join(names)}")
