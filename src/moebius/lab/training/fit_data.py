"""The rows that `fit` receives, as a data set with held-out rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moebius.kit.errors import ArgumentError
from moebius.kit.modes import evaluation_mode
from moebius.lab.data.batches import ordered_batches
from moebius.lab.data.nested import tensors_of
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.call_model import call_model
from moebius.lab.training.fit_rows import Names, read_rows
from moebius.tasks._task import Task


def build_dataset(
    model: nn.Module,
    task: Task,
    data: Any,
    validation: Any,
    seed: int,
    test: Any = None,
    inputs: Names | None = None,
    target: Names | None = None,
    scale: str = "unit",
) -> Dataset:
    """The data set of rows in any form that `read_rows` takes.

    Without test rows the held-out rows stand for them (`has_test` is false), or the training rows where none are.

    Arguments:
        model: its outputs tell whether targets fit.
        task: what is learned.
        data: inputs and targets to train on.
        validation: held-out rows, or the share of `data` to hold out.
        seed: of the choice of held-out rows.
        test: test rows, which decide nothing.
        inputs, target: as for `read_rows`.
        scale: of uint8 pixels.

    Raises:
        ArgumentError: inputs and targets do not fit each other or the model's outputs, or no rows are left to train on.
    """
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def read(name: str, rows: Any) -> Split:
        x, y = read_rows(name, rows, inputs, target, dtype)
        count = len(next(tensors_of(y)))
        return Split(x, y, torch.zeros(count, dtype=torch.long, device=next(tensors_of(y)).device))

    rows = read("data", data)
    if isinstance(validation, float | int):
        if not 0 <= validation < 1:
            rule = "needs rows, or a share of at least 0 and below 1"
            raise ArgumentError("validation", rule, validation, "validation=0.1")
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))
        count = round(validation * len(rows))
        held_out = rows.take(order[:count].sort().values) if count else None
        train = rows.take(order[count:].sort().values) if count else rows
    else:
        train, held_out = rows, read("validation", validation)
    if not len(train):
        raise ArgumentError("data", "must leave rows to train on", len(train), "validation=0.0")
    tested = read("test", test) if test is not None else None
    dataset = Dataset(train, held_out, tested or held_out or train, (), ("data",), "data given to fit")
    dataset = dataset.with_scale(scale)
    output = _output(model, dataset.train)
    for split in (train, held_out, tested):
        if split is not None:
            task.for_model(model).check(output, split.labels)
    classes = output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0
    names = tuple(str(number) for number in range(classes))
    return replace(dataset, classes=names)


def _output(model: nn.Module, split: Split) -> Any:
    """The model's output for the first row."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    batch = next(ordered_batches(split.take(torch.arange(1, device=split.device)), 1, device=device))
    with evaluation_mode(model), torch.no_grad():
        return call_model(model, batch.x, batch.domains)
