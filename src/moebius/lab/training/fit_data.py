"""The rows that `fit` receives, as a data set with held-out rows."""

import numpy as np
import torch
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.call_model import call_model

Rows = tuple[Tensor, Tensor]


def build_dataset(model: nn.Module, data: Rows, validation: Rows | float | int, seed: int) -> Dataset:
    """The data set of inputs and labels; the held-out rows are also the test rows, or the training rows where none are.

    Arguments:
        model: its outputs tell how many classes there are.
        data: inputs (T, …) and labels (T,).
        validation: held-out inputs and labels, or the share of `data` to hold out.
        seed: of the choice of held-out rows.

    Raises:
        ArgumentError: inputs and labels do not fit each other or the model's outputs, or no rows are left to train on.
    """
    rows = _build_split("data", data)
    if isinstance(validation, tuple):
        train, held_out = rows, _build_split("validation", validation)
    else:
        if not 0 <= validation < 1:
            rule = "needs rows, or a share of at least 0 and below 1"
            raise ArgumentError("validation", rule, validation, "validation=0.1")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        count = round(validation * len(rows))
        held_out = rows.take(order[:count].sort().values) if count else None
        train = rows.take(order[count:].sort().values) if count else rows
    if not len(train):
        raise ArgumentError("data", "must leave rows to train on", len(train), "validation=0.0")
    classes = _count_classes(model, train)
    for split in (train, held_out):
        if split is not None and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < classes:
            rule = f"needs labels 0 … {classes - 1}, for the model has so many outputs"
            fix = "labels that count the outputs, or experts with an output more"
            raise ArgumentError("data", rule, int(split.labels.max()), fix)
    test = train if held_out is None else held_out
    names = tuple(str(number) for number in range(classes))
    return Dataset(train, held_out, test, names, ("data",), "data given to fit")


def _build_split(name: str, rows: Rows) -> Split:
    x, labels = rows
    if len(x) != len(labels) or labels.ndim != 1 or labels.is_floating_point():
        rule = "needs inputs and as many labels, which are whole numbers"
        raise ArgumentError(name, rule, (tuple(x.shape), tuple(labels.shape), labels.dtype), "(x, labels.long())")
    return Split(x, labels.long(), torch.zeros(len(labels), dtype=torch.long, device=labels.device))


def _count_classes(model: nn.Module, split: Split) -> int:
    """The number of the model's outputs for a row."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    row = split.take(torch.arange(1, device=split.labels.device)).to(device)
    with evaluation_mode(model), torch.no_grad():
        output = call_model(model, scale_pixels(row.images), row.domains)
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        rule = "must give one tensor of class scores, (rows, classes)"
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ArgumentError("model", rule, shape, "nn.Sequential(model, head), whose head gives (rows, classes)")
    return output.shape[1]
