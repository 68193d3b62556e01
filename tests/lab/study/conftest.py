"""A small recipe, its data and its plan."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from moebius.lab.data.split import Dataset
from moebius.lab.recipe.load import load_recipe
from moebius.lab.recipe.schema import Recipe
from moebius.lab.study.cohorts import CohortMode
from moebius.lab.study.plan import Plan, make_plan
from moebius.lab.study.run import LoadData

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
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded data go to a folder of the tests' own, also those of the processes they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    """The small recipe with overrides; its path is its `reference`."""
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")

    def load_small_recipe(*overrides: str, seeds: int | None = None, added: str = "") -> Recipe:
        path.write_text(RECIPE + added, encoding="utf-8")
        return load_recipe(str(path), overrides, seeds=seeds)

    return load_small_recipe


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A study sets the number of threads of its process; what it was comes back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Study(NamedTuple):
    """What `run_all` is given."""

    plan: Plan
    load: LoadData
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
        load = LoadData(recipe.data.model_dump(mode="json"), None)
        data = load()
        plan = make_plan(recipe, data, "cpu", workers, out, cohorts=cohorts)
        return Study(Plan(**{**vars(plan), "threads": threads}), load, data, out)

    return create_study


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
