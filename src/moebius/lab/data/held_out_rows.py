"""Training on the rows that are held out from everything that was trained before."""

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset

TrainedRows = Literal["train", "held_out"]
# The share of the held-out rows that stay held out, and choose the epoch.
KEPT_SHARE = 0.2


def train_on_held_out(data: Dataset) -> Dataset:
    """The data with the held-out rows as training rows, but for a fifth of them, which stay held out.

    What learns on frozen experts learns here from rows that they were not trained on: on their own training rows they
    are surer, and more often right, than they will ever be again. The fifth is drawn at random with a fixed seed.

    Raises:
        ArgumentError: there are not two held-out rows.

    Example:
        >>> import tempfile
        >>> from moebius.lab.data.load_sets import load_sets
        >>> from moebius.lab.data.sources.digits import Digits
        >>> digits = load_sets([Digits()], size=8, cache_dir=tempfile.mkdtemp(), validation_rows=100)
        >>> moved = train_on_held_out(digits)
        >>> len(moved.train), len(moved.validation), len(moved.test) == len(digits.test)
        (80, 20, True)
    """
    count = 0 if data.validation is None else len(data.validation)
    if data.validation is None or count < 2:
        raise ArgumentError("rows", "needs rows that are held out", count, "data: {validation_rows: 5000}")
    order = torch.from_numpy(np.random.default_rng(0).permutation(count))
    kept = max(1, round(KEPT_SHARE * count))
    train = data.validation.take(order[kept:].sort().values)
    validation = data.validation.take(order[:kept].sort().values)
    fingerprint = hashlib.sha256(repr((data.fingerprint, "held_out")).encode()).hexdigest()
    return replace(data, train=train, validation=validation, fingerprint=fingerprint)
