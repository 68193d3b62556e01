"""Studies by executors, and the files that must not differ by a bit."""

from collections.abc import Callable
from typing import Any

import pytest

from moebius.lab.study.run_all import run_all

BITS = ("model.safetensors", "metrics.jsonl", "routing.parquet")


@pytest.fixture
def bits() -> Callable[..., dict[tuple[str, str], bytes]]:
    """The files of a plan's runs."""

    def read(plan: Any) -> dict[tuple[str, str], bytes]:
        paths = {(run.name, name): run.folder / name for run in plan.all_runs for name in BITS}
        return {key: path.read_bytes() for key, path in paths.items() if path.exists()}

    return read


@pytest.fixture
def train() -> Callable[..., None]:
    """Trains what is not finished, by an executor; closes it."""

    def train_plan(study: Any, listener: Any, executor: Any = None, most: int | None = None) -> None:
        unfinished = [run for run in study.plan.all_runs if not run.is_finished]
        try:
            run_all(study.plan, unfinished, study.data, listener, executor, most)
        finally:
            if executor is not None:
                executor.close()

    return train_plan
