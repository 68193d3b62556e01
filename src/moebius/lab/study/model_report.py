"""`report`: the page of a study's folder, of a model that `mb.fit` has trained, or of any model."""

from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Dataset
from moebius.lab.doctor.diagnose import ROWS, diagnose_split
from moebius.lab.report import build
from moebius.lab.study.fitted_report import write_report, write_study
from moebius.lab.training.call_model import ModelCall
from moebius.lab.training.evaluated import evaluate_finished
from moebius.lab.training.fit_data import build_dataset
from moebius.lab.training.fit_rows import Names
from moebius.lab.training.mixture_parts import mixture_layers
from moebius.lab.training.outcome import Origin, Trained
from moebius.tasks._choice import TaskLike, as_task


@overload
def report(model: Path | str) -> Path: ...


@overload
def report(model: Trained, *, folder: Path | str, title: str = "") -> Path: ...


@overload
def report(
    model: nn.Module,
    data: Any,
    folder: Path | str,
    *,
    task: TaskLike = "classification",
    train: Any = None,
    inputs: Names | None = None,
    target: Names | None = None,
    scale: str = "unit",
    title: str = "",
) -> Path: ...


def report(
    model: nn.Module | Trained | Path | str,
    data: Any = None,
    folder: Path | str | None = None,
    *,
    task: TaskLike = "classification",
    train: Any = None,
    inputs: Names | None = None,
    target: Names | None = None,
    scale: str = "unit",
    title: str = "",
) -> Path:
    """Write the page that a recipe's study has for a model, however it was built and trained, or a study's page anew.

    The folder gets report.html, results.json and .csv, tables/*.csv, figures, and the routes of all rows
    (docs/results-schema.md). The page has the score with the interval of its rows, each expert by itself, the headroom
    of its gates, what each expert takes, and what the doctor finds (`mb.diagnose`). The model is left as it is.

    Arguments:
        model: any module with mixtures inside; or the outcome of `mb.fit`, with test rows, which needs no data; or the
            folder of a study alone.
        data: rows that the model was not trained on, in any form that `mb.diagnose` takes; of a `moebius.lab.data` set
            the test rows, and the training rows beside them.
        folder: where the files go, created; one that holds such a report is written anew.
        task: what was learned, as for `mb.fit`.
        train: training rows in any of these forms, for figures beside those of `data`; None for none.
        inputs, target: names of columns, as for `mb.fit`.
        scale: of uint8 pixels, as for `mb.fit`.
        title: heading of the page; the class of the model unless given.

    Returns:
        The path of report.html.

    Raises:
        ArgumentError: there is no mixture of moebius in the model, no folder, or inputs, targets, task and model do not
            fit.
        StudyError: the folder holds something else than such a report; or it is to be that of a study, and is none.

    Example:
        >>> import tempfile, moebius as mb
        >>> x = torch.randn(60, 4)
        >>> moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 2), nn.Linear(4, 2)])
        >>> report(moe, (x, (x[:, 0] > 0).long()), tempfile.mkdtemp()).name  # doctest: +SKIP
        'report.html'

    Reference: ours.
    """
    if isinstance(model, Path | str):
        return build(Path(model))
    if folder is None:
        rule, fix = "needs a folder to write the page to", 'mb.report(model, (x_test, y_test), "report")'
        fix = 'mb.report(fitted, folder="report")' if isinstance(model, Trained) else fix
        raise ArgumentError("folder", rule, None, fix)
    if isinstance(model, Trained):
        return write_report(model, folder, title)
    if not mixture_layers(model):
        rule = "must be a mixture, or have one inside; mb.diagnose examines those of other libraries"
        raise ArgumentError("model", rule, type(model).__name__, "mb.diagnose(model, batches)")
    if data is None:
        rule = "needs rows that the model was not trained on"
        raise ArgumentError("data", rule, None, 'mb.report(model, (x_test, y_test), "report")')
    learned = as_task(task)
    if isinstance(data, Dataset):
        dataset, has_train = data, True
    else:
        rows = data if train is None else train
        dataset = build_dataset(model, learned, rows, 0.0, 0, data, inputs, target, scale)
        has_train = train is not None
    dataset = dataset.to(next((parameter.device for parameter in model.parameters()), torch.device("cpu")))
    learned = learned.for_model(model).for_data(dataset.train.labels)
    trained = evaluate_finished(model, learned, dataset, has_train)
    names = {"class": dataset.classes, "domain": dataset.domains}
    findings = diagnose_split(ModelCall(model), learned, dataset.test, names, ROWS).findings
    origin = Origin(dataset.to("cpu"), learned, 0, "fp32")
    return write_study(trained, origin, Path(folder), title or type(model).__name__, findings)
