"""Some of the classes only."""

from collections.abc import Sequence

import torch

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
from moebius.lab.data.split import Split


def keep_classes(
    names: tuple[str, ...], domains: tuple[str, ...], train: Split, test: Split, classes: Sequence[str | int]
) -> tuple[tuple[str, ...], Split, Split]:
    """Keep the rows of some classes, and number the classes in the order given.

    Arguments:
        names: all classes.
        domains: names of the combined sets.
        train, test: splits labelled by position in `names`.
        classes: names or positions of those to keep.

    Returns:
        the names of the kept classes, and both splits labelled by position in them.

    Raises:
        ArgumentError: for a class that is unknown or given twice, or a set or split left without rows.
    """
    chosen = positions_of(classes, names)
    relabel = torch.full((len(names),), -1)
    relabel[chosen] = torch.arange(len(chosen))
    kept = []
    for split in (train, test):
        labels = relabel[split.labels]
        rows = (labels >= 0).nonzero().squeeze(1)
        taken = split.take(rows)
        for position, domain in enumerate(domains):
            if not (taken.domains == position).any():
                fix = f"keep a class of {domain}, or take the set out"
                raise ArgumentError("classes", f"must leave rows of {domain}", list(classes), fix)
        kept.append(Split(taken.images, labels[rows], taken.domains))
    return tuple(names[position] for position in chosen), kept[0], kept[1]


def positions_of(entries: Sequence[str | int], names: tuple[str, ...], argument: str = "classes") -> list[int]:
    """The positions of classes (or sets), in the order given.

    Raises:
        ArgumentError: one that is unknown or given twice, or none at all.
    """
    chosen: list[int] = []
    for entry in entries:
        position = position_of(entry, names, argument)
        if position in chosen:
            raise ArgumentError(argument, "must differ", list(entries), f"take one {entry!r} out")
        chosen.append(position)
    if not chosen:
        raise ArgumentError(argument, "needs at least one", list(entries), f"{argument}: [{names[0]}]")
    return chosen


def position_of(entry: str | int, names: tuple[str, ...], argument: str = "classes") -> int:
    """The position of a class (or a set), given by its name or by the position itself.

    Raises:
        ArgumentError: there is no such one.

    Example:
        >>> position_of("ship", ("cat", "ship")), position_of(0, ("cat", "ship"))
        (1, 0)
    """
    # Digit sets have classes called "3": text is a name, a number is a position.
    if isinstance(entry, str):
        if entry in names:
            return names.index(entry)
        raise ArgumentError(argument, f"must be names or positions of {argument}", entry, did_you_mean(entry, names))
    if 0 <= entry < len(names):
        return entry
    raise ArgumentError(argument, f"must be positions 0 … {len(names) - 1}", entry, f"one of {', '.join(names)}")
