"""Selection of the rows that one stage trains on and is tested on."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.held_out_rows import TrainedRows, train_on_held_out
from moebius.lab.data.split import Dataset, Split
from moebius.lab.data.subset import find_positions

OWN_AND_OTHER = "own+other"
# The name of all classes but a stage's own.
OTHER = "other"


def select_rows(
    data: Dataset,
    classes: Sequence[str | int] | None = None,
    groups: Sequence[Sequence[str | int]] | None = None,
    domains: Sequence[str | int] | None = None,
    train_rows: int | None = None,
    outputs: str = "all",
    others: float | int | str = 1.0,
    trained: TrainedRows = "train",
) -> Dataset:
    """Select rows of the data by class, group of classes, or set, in all splits alike.

    Arguments:
        data: all rows.
        classes: names or positions of the classes to keep; None = all.
        groups: lists of names or positions of classes. A row's label becomes the position of the group that holds its
            class; rows of classes in no group are left out.
        domains: names or positions of the sets to keep; None = all.
        train_rows: number of training rows to keep, drawn at random with a fixed seed; None = all.
        outputs: "all": labels stay positions among all classes; "own": labels become positions in `classes`;
            "own+other": the same, and rows of other classes are kept with the label n = len(classes).
        others: for "own+other", how many rows of other classes each split keeps for a row of `classes`, drawn at random
            with a fixed seed: a number above 0, or "all".
        trained: "held_out" to train on the held-out rows, as `train_on_held_out` says.

    Returns:
        The selected rows, with a fingerprint that depends on the choice.

    Raises:
        ArgumentError: an unknown class or set, a repeated one, both `classes` and `groups`, groups that share a class,
            a number of training rows out of range, or a split without rows.

    Example:
        >>> import tempfile
        >>> from moebius.lab.data.load_sets import load_sets
        >>> from moebius.lab.data.sources.digits import Digits
        >>> digits = load_sets([Digits()], size=8, cache_dir=tempfile.mkdtemp())
        >>> pair = select_rows(digits, classes=["3", "8"], outputs="own")
        >>> pair.classes, sorted(set(pair.test.labels.tolist()))
        (('3', '8'), [0, 1])
        >>> select_rows(digits, classes=["3", "8"], outputs="own+other").classes
        ('3', '8', 'other')
    """
    if trained == "held_out":
        data = train_on_held_out(data)
    if classes is not None and groups is not None:
        rule = "cannot stand beside classes, because both choose the classes to keep"
        raise ArgumentError("groups", rule, list(groups), "remove classes, or remove groups")
    if outputs == OWN_AND_OTHER and classes is None:
        raise ArgumentError("outputs", "needs classes, for there is no other one otherwise", outputs, "classes: [0, 8]")
    # Without classes or groups labels stay as they are, whatever the task's targets look like.
    relabel, names = None if classes is None and groups is None else torch.arange(len(data.classes)), data.classes
    if classes is not None and relabel is not None:
        positions = find_positions(classes, data.classes, "classes")
        is_kept = torch.zeros(len(data.classes), dtype=torch.bool)
        is_kept[positions] = True
        relabel[~is_kept] = -1
        if outputs in ("own", OWN_AND_OTHER):
            relabel[positions] = torch.arange(len(positions))
            names = tuple(data.classes[position] for position in positions)
        if outputs == OWN_AND_OTHER:
            relabel[~is_kept] = len(positions)
            names = (*names, OTHER)
    elif groups is not None and relabel is not None:
        members = [find_positions(group, data.classes, "groups") for group in groups]
        grouped = [position for group in members for position in group]
        if len(set(grouped)) < len(grouped):
            rule, fix = "must not share a class", "leave each class in one group only"
            raise ArgumentError("groups", rule, [list(group) for group in groups], fix)
        relabel[:] = -1
        for number, group in enumerate(members):
            relabel[group] = number
        names = tuple(" + ".join(data.classes[position] for position in group) for group in members)
    sets = None if domains is None else torch.tensor(find_positions(domains, data.domains, "domains"))
    train, test = _keep_rows("training", data.train, relabel, sets), _keep_rows("test", data.test, relabel, sets)
    validation = None if data.validation is None else _keep_rows("validation", data.validation, relabel, sets)
    if outputs == OWN_AND_OTHER:
        train, test = (
            _draw_others("training", train, len(names) - 1, others),
            _draw_others("test", test, len(names) - 1, others),
        )
        validation = None if validation is None else _draw_others("validation", validation, len(names) - 1, others)
    if train_rows is not None:
        if not 1 <= train_rows <= len(train):
            rule = f"must be 1 … {len(train)}, the number of selected training rows"
            raise ArgumentError("train_rows", rule, train_rows, "train_rows: null")
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(train)))
        train = train.take(order[:train_rows].sort().values)
    kept_labels = [*range(len(data.classes))] if relabel is None else relabel.tolist()
    choice: tuple[object, ...] = (kept_labels, None if sets is None else sets.tolist(), train_rows, names)
    choice += (others,) if outputs == OWN_AND_OTHER else ()
    fingerprint = hashlib.sha256(repr((data.fingerprint, choice)).encode()).hexdigest()
    selected = replace(data, train=train, validation=validation, test=test, classes=names, fingerprint=fingerprint)
    # The task has counted a model's outputs for all classes.
    return selected if names == data.classes else replace(selected, outputs=None)


def _draw_others(name: str, split: Split, label: int, others: float | int | str) -> Split:
    """The split with `others` rows of this label for each row of another label, in the split's order.

    Raises:
        ArgumentError: there is no row of this label, or too few for the number.
    """
    is_other = split.labels == label
    rows, rest = is_other.nonzero().squeeze(1), int((~is_other).sum())
    if others == "all" and len(rows):
        return split
    count = 0 if isinstance(others, str) else round(others * rest)
    if not 1 <= count <= len(rows):
        rule = f"must leave at least one {name} row of the {len(rows)} of other classes, beside {rest} of its own"
        raise ArgumentError("others", rule, others, f"others: {len(rows) / rest:.2g}, or all")
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(rows)))
    is_kept = ~is_other
    is_kept[rows[order[:count]]] = True
    return split.take(is_kept.nonzero().squeeze(1))


def class_positions(classes: Sequence[str | int] | None, names: Sequence[str]) -> list[int] | None:
    """Positions of the classes that a network has outputs for, as an `Adapter` takes them; None for all classes."""
    return None if classes is None else find_positions(classes, tuple(names))


def _keep_rows(name: str, split: Split, relabel: Tensor | None, sets: Tensor | None) -> Split:
    """The rows of a split whose class and set are kept, with their new labels.

    Arguments:
        name: name of the split, for error messages.
        split: all rows.
        relabel: (C,), the new label of each class; −1 for classes to leave out; None = all rows, with their labels.
        sets: positions of the sets to keep; None = all.
    """
    labels = split.labels if relabel is None else relabel[split.labels]
    is_kept = torch.ones(len(split), dtype=torch.bool) if relabel is None else labels >= 0
    if sets is not None:
        is_kept &= torch.isin(split.domains, sets)
    rows = is_kept.nonzero().squeeze(1)
    if not len(rows):
        raise ArgumentError("classes", f"must leave {name} rows", 0, "add classes, sets, or rows of the data")
    relabelled = replace(split, labels=labels)
    return relabelled if len(rows) == len(split) else relabelled.take(rows)
