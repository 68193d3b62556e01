"""The page of a study for one model that no recipe has made."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import moebius.lab.report
from moebius.kit.errors import ArgumentError, StudyError
from moebius.kit.files import write_json
from moebius.lab.data.split import Dataset
from moebius.lab.documents import StudyFile, read_document
from moebius.lab.illnesses._illness import Finding
from moebius.lab.report.source import SCHEMA
from moebius.lab.study.entries import run_entry
from moebius.lab.study.example_file import write_examples
from moebius.lab.study.routing_file import write_routing
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.study_file import describe_data, describe_hardware, describe_versions
from moebius.lab.training.outcome import Origin, Trained
from moebius.tasks._task import Task

# What `study.json` names in the place of a recipe.
REFERENCE = "mb.fit"


def write_report(trained: Trained, folder: Path | str, title: str = "") -> Path:
    """Write the files of a study of one variant, one seed, and its page.

    Arguments:
        trained: the outcome of `mb.fit`, with test rows.
        folder: of the study, created; one that this function has written is written anew.
        title: heading of the page; the class of the model unless given.

    Returns:
        The path of report.html.

    Raises:
        ArgumentError: the outcome has no test rows, or is none of `mb.fit`.
        StudyError: the folder holds something else.
    """
    origin, folder = trained.origin, Path(folder)
    if origin is None:
        rule = "needs the outcome of mb.fit: a recipe's study has a report already"
        raise ArgumentError("report", rule, type(trained.model).__name__, "moebius report FOLDER-OF-THE-STUDY")
    if "test" not in trained.evaluations:
        rule = "shows figures of test rows, and no test rows were given"
        raise ArgumentError("report", rule, list(trained.evaluations), "mb.fit(…, test=(x_test, y_test))")
    name = type(trained.model).__name__
    return write_study(trained, origin, folder, title or f"{name}, trained by mb.fit")


def write_study(
    trained: Trained,
    origin: Origin,
    folder: Path,
    title: str,
    findings: Sequence[Finding] | None = None,
) -> Path:
    """Write the files of a study of one variant, one seed, and its page.

    Arguments:
        trained: the outcome, with test rows.
        origin: its rows and its task.
        folder: of the study, created; one that this function has written is written anew.
        title: heading of the page.
        findings: what the gates suffer from; None for what the outcome tells.

    Returns:
        The path of report.html.

    Raises:
        StudyError: the folder holds something else.
    """
    _check_folder(folder)
    name, data = type(trained.model).__name__, _with_classes(origin.data, origin.task)
    described = _describe(data)
    if "train" not in trained.evaluations:
        described["train_rows"] = 0
    content = {
        "schema": SCHEMA,
        "study": name,
        "reference": REFERENCE,
        "recipe": {"name": name, "title": title, "variants": {name: {}}},
        "task": {
            "kind": type(origin.task).__name__,
            "score": origin.task.score_name,
            "loss": origin.task.loss_name,
        },
        "versions": describe_versions(),
        "data": described,
        "hardware": describe_hardware(next(trained.model.parameters(), torch.zeros(())).device.type),
    }
    # Beside the folder first: a report that fails leaves the one before as it was.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".report-") as temporary:
        draft = Path(temporary) / "report"
        run = RunSpec(name, origin.seed, draft / name / f"seed-{origin.seed}", {}, {"precision": origin.precision}, "")
        run.folder.mkdir(parents=True)
        write_routing(run.folder / "routing.parquet", data, trained)
        write_examples(run.folder / "examples.safetensors", data, trained)
        entry = run_entry(run.folder, run, data, trained, {}, findings)
        write_json(draft / "study.json", content)
        write_json(draft / "results.json", {"schema": SCHEMA, "study": name, "runs": [entry]})
        moebius.lab.report.build(draft)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    return folder / "report.html"


def _check_folder(folder: Path) -> None:
    """Whether the folder is empty, or a report of this function: nothing else may be lost."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    path = folder / "study.json"
    if not path.is_file() or read_document(path, StudyFile).get("reference") != REFERENCE:
        raise StudyError(f"{folder}: holds something else than a report of one model", f'folder="{folder}-report"')


def _with_classes(data: Dataset, task: Task) -> Dataset:
    """The data with classes only where rows have them."""
    return data if task.target_type == "classes" else replace(data, classes=())


def _describe(data: Dataset) -> dict[str, Any]:
    inputs = data.train.images
    are_images = isinstance(inputs, Tensor) and inputs.ndim == 4
    # By these facts the page tells rows of a table from images.
    return {**describe_data(data), "facts": {} if are_images else {"cardinalities": []}}
