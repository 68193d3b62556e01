"""A small recipe, its data and its plan."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Dataset
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.schema import Recipe
from moebius.lab.study.cohorts import CohortMode, Job
from moebius.lab.study.job import run_job
from moebius.lab.study.job_spec import load_data
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run_all import run_all
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event
from moebius.lab.yaml_text import write_yaml

RECIPE = """
name: small
title: A question
data: {sets: [{kind: digits}, {kind: textures, rows_per_class: 20}], size: 8, train_rows: 120, test_rows: 200}
training: {epochs: 2, batch_size: 40, optimizer: {kind: adam, lr: 1e-2}, checkpoint_seconds: 0.000001}
model:
  gate: {kind: linear}
  experts: {kind: linear, count: 2}
  combine: {kind: log_mixture}
variants:
  linear: {}
  conv: {experts: {kind: conv, filters: [4], hidden: [8]}, combine: {kind: weighted_sum}}
"""


@pytest.fixture(scope="session", autouse=True)
def decoded(cache_folder: Path) -> None:
    """Decoded data go to a folder of the tests' own."""


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """The small recipe with overrides; its path is its `reference`."""
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")

    def load_small_recipe(*overrides: str, seeds: int | None = None, added: str = "") -> Recipe:
        path.write_text(RECIPE + added, encoding="utf-8")
        return load_recipe(str(path), overrides, seeds=seeds)

    return load_small_recipe


class Study(NamedTuple):
    """A plan, its data and its folder."""

    plan: Plan
    data: Dataset
    out: Path


@pytest.fixture
def planned(small_recipe: Callable[..., Recipe]) -> Callable[..., Study]:
    """Plans the small recipe in a folder, on one thread."""

    def create_study(
        out: Path,
        *overrides: str,
        seeds: int | None = None,
        workers: int | None = 1,
        threads: int = 1,
        added: str = "",
        cohorts: CohortMode = "auto",
    ) -> Study:
        recipe = small_recipe(*overrides, seeds=seeds, added=added)
        data = load_data(recipe.data.model_dump(mode="json"), None)
        plan = make_plan(recipe, data, "cpu", workers, out, cohorts=cohorts)
        return Study(replace(plan, threads=threads), data, out)

    return create_study


class Record:
    """What a job or a plan reports while it trains; breaks off where `stop` says so."""

    def __init__(self, stop: Callable[[RunSpec, Event], bool] = lambda run, event: False):
        self.stop = stop
        self.events: list[tuple[str, str, int]] = []
        self.finished: list[str] = []
        self.failures: dict[str, MoebiusError] = {}

    def show(self, run: RunSpec, event: Event) -> None:
        self.events.append((run.name, event.kind, event.step))
        if self.stop(run, event):
            raise KeyboardInterrupt

    def finish(self, run: RunSpec) -> None:
        self.finished.append(run.name)
        self.events.append((run.name, "finished", 0))

    def fail(self, run: RunSpec, error: MoebiusError) -> None:
        self.failures[run.name] = error

    def train_job(self, job: Job, data: Dataset) -> "Record":
        """Do a job in this process."""
        run_job(job, lambda: data, "cpu", self)
        return self

    def train_plan(self, plan: Plan, data: Dataset) -> "Record":
        """Train what is not finished."""
        unfinished = [run for run in plan.all_runs if not run.is_finished]
        run_all(plan, unfinished, data, self)
        return self


@pytest.fixture(scope="session")
def record() -> type[Record]:
    """Trains, and keeps what is reported."""
    return Record


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `moebius run …` or another Python program as a process that ends with the test at the latest."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: Any, code: str | None = None) -> subprocess.Popen[str]:
        arguments_of_python = ["-c", code] if code is not None else ["-m", "moebius"]
        process = subprocess.Popen(
            [sys.executable, *arguments_of_python, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


BASE = {
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 300, "test_rows": 100, "validation_rows": 60},
    "training": {"epochs": 2, "batch_size": 50, "optimizer": {"kind": "adam", "lr": 1e-2}},
    "pretraining": {"network": {"kind": "linear"}, "training": {"batch_size": 20}},
    "model": {"gate": {"kind": "linear"}, "combine": {"kind": "weighted_sum"}},
}


@pytest.fixture(scope="session")
def few_stages() -> Callable[..., dict[str, Any]]:
    """A recipe of three stages, one of them built on another, and three variants, with some of its keys changed."""

    def create_values(**changes: Any) -> dict[str, Any]:
        def experts_of(*names: str) -> list[dict[str, Any]]:
            # Probabilities: a logit of −∞ for a class that no expert of a variant knows would leave its rows without.
            return [{"kind": "stage", "stage": name, "activation": "softmax"} for name in names]

        stages = {
            "a": {"classes": [0, 8]},
            "b": {"classes": [1, 9], "outputs": "own"},
            "on-a": {"network": {"kind": "stage", "stage": "a", "frozen": False}},
        }
        variants = {
            "a-b": {"experts": experts_of("a", "b")},
            "tuned": {"experts": experts_of("on-a", "b")},
            "alone": {"experts": experts_of("b")},
        }
        return {"name": "few", **BASE, "stages": stages, "variants": variants, **changes}

    return create_values


@pytest.fixture(scope="session")
def ten_stages() -> Callable[[], dict[str, Any]]:
    """A recipe of ten experts of two classes each, and two variants of a mixture of them."""
    pairs = [(0, 8), (1, 9), (2, 6), (3, 5), (4, 7), (0, 9), (1, 8), (2, 7), (3, 6), (4, 5)]
    stages = {f"pair-{first}-{second}": {"classes": [first, second]} for first, second in pairs}
    model = {**BASE["model"], "experts": [{"kind": "stage", "stage": name} for name in stages]}
    variants = {"standard": {}, "sparse": {"router": {"kind": "top_k", "k": 2}}}
    return lambda: {"name": "ten", **BASE, "stages": stages, "model": model, "variants": variants}


@pytest.fixture(scope="session")
def changed() -> Callable[..., dict[str, Any]]:
    """Changes one key of nested mappings, in a copy."""

    def change(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
        values = json.loads(json.dumps(values))
        inner = values
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
        return values

    return change


@pytest.fixture
def stage_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """The recipe of these values."""

    def load(values: dict[str, Any], *overrides: str) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(write_yaml(values), encoding="utf-8")
        return load_recipe(str(path), overrides)

    return load


class StageStudy:
    """A plan and its folder."""

    def __init__(self, recipe: Recipe, out: Path, workers: int = 1, stages_dir: Path | None = None):
        self.data, self.out = load_data(recipe.data.model_dump(mode="json"), None), out
        self.plan = make_plan(recipe, self.data, "cpu", workers, out, stages_dir)

    def run(self, stop: Callable[[RunSpec, Event], bool] = lambda run, event: False) -> dict[str, str]:
        """Train what is not finished, and return the messages of the runs that failed; breaks off where `stop` says."""
        self.record = Record(stop)
        self.record.train_plan(self.plan, self.data)
        return {name: error.message for name, error in self.record.failures.items()}

    def folder(self, name: str) -> Path:
        """The folder of the stage or the variant."""
        return next(run.folder for run in self.plan.all_runs if run.variant == name)

    def stamps(self, names: Sequence[str]) -> dict[str, int]:
        """When the weights of these stages or variants were written."""
        return {name: (self.folder(name) / "model.safetensors").stat().st_mtime_ns for name in names}

    def bits(self) -> dict[tuple[str, str], bytes]:
        """The files of all runs that must not differ by a bit."""
        files = ("model.safetensors", "metrics.jsonl")
        return {(run.name, file): (run.folder / file).read_bytes() for run in self.plan.all_runs for file in files}


@pytest.fixture
def stage_study(monkeypatch: pytest.MonkeyPatch) -> type[StageStudy]:
    """Plans a recipe with stages, on one thread: more would wait for each other in these small models."""
    monkeypatch.setattr("moebius.lab.study.plan.count_cores", lambda: 1)
    return StageStudy
