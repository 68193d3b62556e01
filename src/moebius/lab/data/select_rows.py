"""The rows that one stage trains on."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import positions_of


def select_rows(
    data: Dataset,
    classes: Sequence[str | int] | None = None,
    groups: Sequence[Sequence[str | int]] | None = None,
    domains: Sequence[str | int] | None = None,
    train_rows: int | None = None,
    outputs: str = "all",
) -> Dataset:
    """The data with some of their rows, in all splits alike; what is left out of a split is seen by nobody.

    Arguments:
        data: all rows.
        classes: names or positions of the classes to keep; None for all.
        groups: labels become the group that a class belongs to; rows of classes in no group are left out.
        domains: names or positions of the sets to keep; None for all.
        train_rows: how many of the training rows to keep, drawn at random, always the same; None for all.
        outputs: what labels count: "all" classes as before, or the "own" ones, in the order of `classes`.

    Raises:
        ArgumentError: an unknown class or set, one given twice, classes beside groups, or a split left without rows.

    Example:
        >>> import tempfile
        >>> from moebius.lab.data.load_sets import load_sets
        >>> from moebius.lab.data.sources.digits import Digits
        >>> digits = load_sets([Digits()], size=8, cache_dir=tempfile.mkdtemp())
        >>> pair = select_rows(digits, classes=["3", "8"], outputs="own")
        >>> pair.classes, sorted(set(pair.test.labels.tolist()))
        (('3', '8'), [0, 1])
    """
    if classes is not None and groups is not None:
        raise ArgumentError(
            "groups", "cannot stand beside classes: they are classes themselves", list(groups), "one of the two"
        )
    relabel, names = torch.arange(len(data.classes)), data.classes
    if classes is not None:
        kept = positions_of(classes, data.classes, "classes")
        inside = torch.zeros(len(data.classes), dtype=torch.bool)
        inside[list(kept)] = True
        relabel[~inside] = -1
        if outputs == "own":
            relabel[list(kept)] = torch.arange(len(kept))
            names = tuple(data.classes[place] for place in kept)
    elif groups is not None:
        members = [positions_of(group, data.classes, "groups") for group in groups]
        everyone = [place for group in members for place in group]
        if len(set(everyone)) < len(everyone):
            rule, fix = "must not share a class", "each class in one of them"
            raise ArgumentError("groups", rule, [list(group) for group in groups], fix)
        relabel[:] = -1
        for number, group in enumerate(members):
            relabel[list(group)] = number
        names = tuple(" + ".join(data.classes[place] for place in group) for group in members)
    sets = None if domains is None else torch.tensor(positions_of(domains, data.domains, "domains"))
    train, test = _kept("training", data.train, relabel, sets), _kept("test", data.test, relabel, sets)
    validation = None if data.validation is None else _kept("validation", data.validation, relabel, sets)
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            raise ArgumentError(
                "train_rows", f"must be 1 … {len(train)}, the rows there are", train_rows, "train_rows: null"
            )
        drawn = torch.from_numpy(np.random.default_rng(0).permutation(len(train)))
        train = train.take(drawn[:train_rows].sort().values)
    choice = (relabel.tolist(), None if sets is None else sets.tolist(), train_rows, names)
    fingerprint = hashlib.sha256(repr((data.fingerprint, choice)).encode()).hexdigest()
    return replace(data, train=train, validation=validation, test=test, classes=names, fingerprint=fingerprint)


def known_classes(classes: Sequence[str | int] | None, names: Sequence[str]) -> list[int] | None:
    """Positions of the classes that a network knows, as an adapter wants them; None for all."""
    return None if classes is None else positions_of(classes, tuple(names))


def _kept(name: str, split: Split, relabel: Tensor, sets: Tensor | None) -> Split:
    labels = relabel[split.labels]
    inside = labels >= 0
    if sets is not None:
        inside &= torch.isin(split.domains, sets)
    rows = inside.nonzero().squeeze(1)
    if not len(rows):
        raise ArgumentError(
            "classes", f"must leave {name} rows", 0, "further classes or sets, or more rows of the data"
        )
    if len(rows) == len(split):
        return Split(split.images, labels, split.domains)
    return Split(split.images[rows], labels[rows], split.domains[rows])
