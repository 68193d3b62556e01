"""The file `job.json`: all that a process needs to do one job of a study, in the job's folder."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from pydantic import TypeAdapter

from moebius.kit.allocator import tune_allocator
from moebius.kit.commands import command
from moebius.kit.errors import DamagedFileError, StudyError
from moebius.kit.files import json_text, read_json, write_text
from moebius.kit.registry import find
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.split import Dataset
from moebius.lab.data.targets import with_task
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.study.cohorts import Job
from moebius.lab.study.run_spec import DEFAULT_TASK, RunSpec
from moebius.tasks._choice import as_task

SCHEMA = 1


@dataclass(frozen=True)
class JobSpec:
    """The description of one job.

    Arguments:
        runs: one run, or the runs of a cohort.
        data: the `data` part of a resolved recipe.
        data_dir: folder with local copies of the data sets, or None.
        directory: the working directory, where relative paths of `data` begin.
        fingerprint: of the data.
        device: "cpu" or "cuda".
        threads: for the products of the process.
        plugins: files that the process runs before it builds anything.
        processes: that train each run together.
        mixed: whether runs may go on with other versions than they were begun with.
    """

    runs: Job
    data: Mapping[str, Any]
    data_dir: Path | None
    directory: Path
    fingerprint: str
    device: str
    threads: int
    plugins: tuple[Plugin, ...] = ()
    processes: int = 1
    mixed: bool = False

    @property
    def folder(self) -> Path:
        """The job's folder: that of its run, or of the first run of its cohort."""
        return self.runs[0].folder

    def prepare_process(self) -> None:
        """Set the number of threads and the allocator, as every process that trains does first."""
        torch.set_num_threads(self.threads)
        tune_allocator()

    def load_data(self, seed: int | None = None) -> Dataset:
        """Run the plugins and load the data, which this process keeps for the next job.

        Arguments:
            seed: of the run, where each seed has its rows; that of the job's runs unless given.

        Raises:
            StudyError: plugins or data are not those of the plan, or the device is missing.
            DataError: the data cannot be read.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            fix = command("moebius", "job", self.folder) + "    # on a machine with a GPU"
            raise StudyError(f"{self.folder}: was planned for a GPU, and torch finds none here", fix)
        for plugin in self.plugins:
            plugin.load()
        with contextlib.chdir(self.directory) if self.directory.is_dir() else contextlib.nullcontext():
            arguments = (json.dumps(self.data), json.dumps(self.runs[0].task), self.data_dir)
            data, draw = _load_data(*arguments), draw_of(self.data, self.runs[0].seed if seed is None else seed)
            rows = data if draw == 0 else _load_data(*arguments, draw)
        if data.fingerprint != self.fingerprint:
            fix = "moebius run RECIPE --out ANOTHER-FOLDER    # a study of these data"
            raise StudyError(f"{self.folder}: the data are not those that the study was planned with", fix)
        return rows

    def write(self) -> None:
        """Write the job's `job.json`, unless it says the same already.

        Paths are relative to the job's folder inside one study's or one stages' folder, which move as a whole, and
        absolute elsewhere.
        """
        folder = self.folder.absolute()

        def plain_path(path: Path) -> Path:
            path = path.absolute()
            return Path(os.path.relpath(path, folder)) if path.is_relative_to(folder.parent.parent) else path

        data_dir = None if self.data_dir is None else self.data_dir.absolute()
        job = replace(self, data_dir=data_dir, runs=tuple(_change_paths(run, plain_path) for run in self.runs))
        text = json_text({"schema": SCHEMA, **asdict(job)}, allow_nan=True, default=os.fspath)
        path = folder / "job.json"
        if not path.exists() or path.read_bytes() != text.encode():
            write_text(path, text)

    @classmethod
    def read(cls, folder: Path) -> "JobSpec":
        """The job of this folder.

        Raises:
            StudyError: the folder holds no job, or the file is damaged.
        """
        path = folder / "job.json"
        again = command("moebius", "run", "RECIPE", "--out", folder.parent.parent, "--plan-only")
        if not path.exists():
            fix = f"{again}    # prints the folders that hold jobs"
            raise StudyError(f"{folder}: holds no job.json", fix)
        fix = f"{again}    # writes it anew"
        try:
            content = read_json(path)
            if content["schema"] != SCHEMA:
                raise ValueError("another version of moebius wrote it")
            job = TypeAdapter(cls).validate_python(content)
        except DamagedFileError as error:
            raise DamagedFileError(path, error.reason, fix) from None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StudyError(f"{path}: cannot be read ({type(error).__name__}: {error})", fix) from None
        runs = (_change_paths(run, lambda path: Path(os.path.normpath(folder / path))) for run in job.runs)
        return replace(job, runs=tuple(runs))


def _change_paths(run: RunSpec, change: Callable[[Path], Path]) -> RunSpec:
    folders = {name: change(folder) for name, folder in run.folders.items()}
    return replace(run, folder=change(run.folder), folders=folders)


def draw_of(data: Mapping[str, Any], seed: int) -> int:
    """The number of the draw of rows that a seed has, by the `data` part of a recipe.

    Example:
        >>> draw_of({"split": "by_seed"}, 3), draw_of({}, 3)
        (3, 0)
    """
    return seed if data.get("split") == "by_seed" else 0


# The first draw, which the plan has checked, and that of a seed.
@functools.lru_cache(maxsize=2)
def _load_data(spec_json: str, task_json: str, data_dir: Path | None, draw: int = 0) -> Dataset:
    return load_data(json.loads(spec_json), data_dir, json.loads(task_json), draw)


def load_data(
    spec: Mapping[str, Any],
    data_dir: Path | None,
    task: Mapping[str, Any] = MappingProxyType(DEFAULT_TASK),
    draw: int = 0,
) -> Dataset:
    """Load the data of a recipe, from the cache where they were decoded before, with targets as the task takes them.

    Arguments:
        spec: the `data` part of a resolved recipe.
        data_dir: folder with local copies of named sets, or None.
        task: of the recipe.
        draw: number of the draw of held-out rows and training rows.

    Raises:
        StudyError: the targets are not of the task.
    """
    options = {key: value for key, value in spec.items() if key != "split"}
    sources = [
        find("data.sources", source["kind"])(**{key: value for key, value in source.items() if key != "kind"})
        for source in options.pop("sets")
    ]
    return with_task(load_sets(sources, data_dir=data_dir, draw=draw, **options), as_task(task))
