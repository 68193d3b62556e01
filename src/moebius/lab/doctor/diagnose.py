"""What a model's gates and experts suffer from, told from rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moebius.integrations import Described
from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset, Split
from moebius.lab.doctor.diagnosis import Diagnosis, Subject
from moebius.lab.doctor.examination import Examiner
from moebius.lab.doctor.gate_network import with_gate_network
from moebius.lab.doctor.watched import examine_watched
from moebius.lab.illnesses._find import find_illnesses
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.fit_rows import Names
from moebius.lab.training.mixture_parts import mixture_layers
from moebius.tasks._choice import TaskLike, as_task
from moebius.tasks._task import Task

# Rows that are looked at: a share is then known to about a hundredth.
ROWS = 5000


def diagnose(
    model: nn.Module,
    data: Any,
    *,
    task: TaskLike = "classification",
    inputs: Names | None = None,
    target: Names | None = None,
    mask: Tensor | None = None,
    describe: Mapping[str, Described] | None = None,
    rows: int = ROWS,
    seed: int = 0,
    baseline: bool = False,
    train: Any = None,
) -> Diagnosis:
    """Examine the gates and experts of a model, and say what is wrong with them and what to try.

    Every test of the room `moebius.lab.illnesses` is made for every gate. A finding names the null that its figure was
    tested against, and the interval of the figure at 99 %; figures that differ from their null by chance, or by too
    little to matter, are no finding. The model is left as it is: parameters, statistics and counters.

    Arguments:
        model: a mixture, or any module with mixtures inside, of ours or of another library.
        data: rows that the model was not trained on, in any form that `mb.fit` takes; of a `moebius.lab.data` set the
            held-out rows, or else the test rows. For a model with mixtures of another library an iterable of what it
            is called with: mappings of keywords, tuples or tensors; the task is then not asked.
        task: what was learned, as for `mb.fit`.
        inputs, target: names of columns, as for `mb.fit`.
        mask: False for padding: (T,), or for tokens (T, S); it is not given to the model, which may have its own.
        describe: as for `mb.watch`, for mixtures of another library that no family recognises.
        rows: how many rows are looked at, drawn by `seed`; of tokens the first ones.
        seed: of the draw.
        baseline: whether the gate's own architecture is trained on the task, without experts, to be compared with the
            mixture; it takes as long as a short training.
        train: rows for that, in any of these forms: the training rows of a `moebius.lab.data` set, and of other data
            a half of the rows, unless given. The others are examined.

    Returns:
        The diagnosis: `findings`, by gate and code, `tables()` of all measures, and `try_remedies()`.

    Raises:
        ArgumentError: inputs, targets, task and model do not fit, or there are no batches.
        MoebiusError: no mixture is recognised.

    Example:
        >>> import moebius as mb
        >>> x = torch.randn(400, 2)
        >>> moe = mb.Mixture(mb.gates.Uniform(2), [mb.experts.Linear(2, 2), mb.experts.Linear(2, 2)])
        >>> "blind gate" in diagnose(moe, (x, (x[:, 0] > 0).long())).kinds
        False

    Reference: ours.
    """
    if describe is not None or not mixture_layers(model):
        examinations = tuple(examine_watched(model, data, rows, describe))
        return Diagnosis(tuple(finding for gate in examinations for finding in find_illnesses(gate)), examinations)
    learned = as_task(task)
    if isinstance(data, Dataset):
        dataset, split = data, data.validation or data.test
    else:
        dataset = build_dataset(model, learned, data, 0.0, seed, None, inputs, target)
        split = dataset.train
    learned = learned.for_model(model).for_data(dataset.train.labels)
    names = {"class": dataset.classes, "domain": dataset.domains}
    train_split = None
    if baseline and train is not None:
        train_split = build_dataset(model, as_task(task), train, 0.0, seed, None, inputs, target).train
    elif baseline and isinstance(data, Dataset):
        train_split = data.train
    elif baseline:
        order = torch.from_numpy(np.random.default_rng([seed, 4]).permutation(len(split))).to(split.device)
        fitted, examined = order[: len(order) // 2], order[len(order) // 2 :]
        mask = None if mask is None else mask[examined]
        train_split, split = split.take(fitted), split.take(examined)
    return diagnose_split(ModelCall(model), learned, split, names, rows, seed, train_split, mask)


def diagnose_split(
    call: ModelCall,
    task: Task,
    split: Split,
    names: Mapping[str, Sequence[str]],
    rows: int = ROWS,
    seed: int = 0,
    train: Split | None = None,
    mask: Tensor | None = None,
) -> Diagnosis:
    """`diagnose` for rows that are read already.

    Arguments:
        call: the model.
        task: what is learned, for this model.
        split: rows.
        names: of the groups "class" and "domain".
        rows, seed, mask: as for `diagnose`.
        train: rows that the gate's own architecture is trained on; None to leave it.
    """
    if rows < 1:
        raise ArgumentError("rows", "needs at least 1", rows, f"rows={ROWS}")
    if mask is not None and len(mask) != len(split):
        rule = f"needs an entry for each of the {len(split)} rows"
        raise ArgumentError("mask", rule, tuple(mask.shape), "mask=torch.ones(len(x), dtype=torch.bool)")
    device = next((parameter.device for parameter in call.model.parameters()), torch.device("cpu"))
    sample, examined = split, None
    if len(split) > rows:
        examined = torch.from_numpy(np.sort(np.random.default_rng(seed).choice(len(split), rows, replace=False)))
        sample = split.take(examined.to(split.device))
        mask = None if mask is None else mask[examined]
    examinations = tuple(Examiner(call, task, sample.to(device), names, mask).examine())
    if train is not None:
        examinations = tuple(
            with_gate_network(gate, call, task, train, sample.to(device), seed) for gate in examinations
        )
    findings = tuple(finding for gate in examinations for finding in find_illnesses(gate))
    return Diagnosis(findings, examinations, Subject(call, task, split, names, examined))
