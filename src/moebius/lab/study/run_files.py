"""The files that a run leaves in its folder."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from moebius.kit.errors import DivergedError, MoebiusError
from moebius.kit.files import remove_file, write_json
from moebius.lab.data.split import Dataset
from moebius.lab.documents import ErrorFile, RunEntry, read_document
from moebius.lab.model.resolve import resolve
from moebius.lab.study.entries import run_entry, stage_entry
from moebius.lab.study.example_file import write_examples
from moebius.lab.study.routing_file import write_routing
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Trained
from moebius.storage.save import save

# safetensors writes under a name of its own beside the file, of six random characters.
SAFETENSORS_TEMPORARY = ".tmp??????"


def write_run(run: RunSpec, rows: Dataset, trained: Trained, stage_names: Mapping[nn.Module, str]) -> None:
    """Write a finished run's files; `result.json` last.

    Arguments:
        run: its description.
        rows: the data that it was trained on.
        trained: the outcome.
        stage_names: expert that a stage has trained → name of the stage.
    """
    _write_model(run, rows, trained)
    if run.rows is None:
        write_routing(run.folder / "routing.parquet", rows, trained)
        write_examples(run.folder / "examples.safetensors", rows, trained)
        write_json(run.result_path, run_entry(run.folder, run, rows, trained, stage_names))
    else:
        write_json(run.result_path, stage_entry(run.folder, run, rows, trained))


def collect(runs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The entries of all finished runs, in the order of `runs`."""
    return [read_document(run.result_path, RunEntry) for run in runs if run.is_finished]


def write_error(run: RunSpec, error: MoebiusError) -> None:
    """Leave the error that ended a run in its folder, as `error.json`, for whoever started the job."""
    with suppress(OSError):  # the folder may be what cannot be written
        diverged = {"diverged": True} if isinstance(error, DivergedError) else {}
        write_json(_error_path(run.folder), {"message": error.message, "fix": error.fix, **diverged})


def read_error(folder: Path) -> dict[str, Any] | None:
    """What `write_error` left: `message`, `fix`, and `diverged` if so; None where the run has not failed."""
    path = _error_path(folder)
    return read_document(path, ErrorFile) if path.exists() else None


def has_diverged(run: RunSpec) -> bool:
    """Whether the run has ended because a loss was no finite number."""
    return not run.is_finished and bool((read_error(run.folder) or {}).get("diverged"))


def remove_error(run: RunSpec) -> None:
    """Forget the error of an earlier attempt."""
    remove_file(_error_path(run.folder))


def remove_leftovers(folder: Path, age: float | int = 0) -> None:
    """Remove the temporary files of a process that was killed while it wrote.

    Arguments:
        folder: of a run, of a stage's outputs, or of a study, whose report has folders of its own. The caller has
            locked it, unless there is an age.
        age: seconds since the last write to a file that is removed.
    """
    for place in (folder, folder / "tables", folder / "figures"):
        for pattern in (".*.tmp*", SAFETENSORS_TEMPORARY):
            for leftover in () if place.is_symlink() and place != folder else place.glob(pattern):
                if not age or time.time() - leftover.lstat().st_mtime > age:
                    remove_file(leftover)


def _error_path(folder: Path) -> Path:
    return folder / "error.json"


def _write_model(run: RunSpec, data: Dataset, trained: Trained) -> None:
    precision = run.training["precision"]
    about: dict[str, Any] = {
        "task": dict(run.task),
        "classes": [*data.classes],
        "domains": [*data.domains],
        "facts": data.facts,
        "precision": precision,
    }
    if data.scale.kind != "unit":
        about["scale"] = data.scale.to_values()
    if data.columns is not None:
        about["columns"] = data.columns.to_values()
    save(trained.model, run.folder, resolve(run.model, data.facts, run.stages, run.labels), about)
