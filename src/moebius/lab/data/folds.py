"""Folds of the training rows, and the networks that are trained without one of them."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset


def fold_count(trained: str | Mapping[str, int]) -> int | None:
    """K where the value of `rows` is {"cross_fit": K}, else None.

    Example:
        >>> fold_count({"cross_fit": 5}), fold_count("held_out")
        (5, None)
    """
    return None if isinstance(trained, str) else trained["cross_fit"]


def fold_of_rows(rows: int, folds: int) -> Int64[Tensor, "T"]:
    """The fold, 0 … `folds` − 1, of each of `rows` rows: drawn at random with a fixed seed, equal in size to one row.

    Raises:
        ArgumentError: there are fewer rows than folds.

    Example:
        >>> fold_of_rows(7, 3).bincount().tolist()
        [3, 2, 2]
    """
    if rows < folds:
        raise ArgumentError("rows.cross_fit", f"must be 2 … {rows}, the number of training rows", folds, "cross_fit: 5")
    return torch.from_numpy(np.random.default_rng(0).permutation(rows)) % folds


def without_fold(data: Dataset, fold: int, folds: int) -> Dataset:
    """The data without the training rows of one fold, of `folds`."""
    kept = (fold_of_rows(len(data.train), folds) != fold).nonzero().squeeze(1)
    fingerprint = hashlib.sha256(repr((data.fingerprint, "without fold", fold, folds)).encode()).hexdigest()
    return replace(data, train=data.train.take(kept), fingerprint=fingerprint)


def fold_names(name: str, folds: int) -> list[str]:
    """Names of the stages that are trained as the stage `name` is, without the rows of one fold each.

    No name that a user gives to a stage holds a point.

    Example:
        >>> fold_names("generalist", 2)
        ['generalist.fold-1-of-2', 'generalist.fold-2-of-2']
    """
    return [f"{name}.fold-{number + 1}-of-{folds}" for number in range(folds)]
