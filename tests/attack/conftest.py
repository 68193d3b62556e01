"""Small studies in folders that somebody else has filled."""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import moebius as mb
from moebius.lab.explorer import Explorer, explore_model, explore_run
from moebius.lab.recipe.load import load_recipe
from moebius.lab.study.job_spec import JobSpec, load_data
from moebius.lab.study.plan import make_plan
from moebius.lab.yaml_text import write_yaml

RECIPE = {
    "name": "small",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 60, "test_rows": 40},
    "training": {"epochs": 1, "batch_size": 30, "optimizer": {"kind": "adam", "lr": 1e-2}, "checkpoint_seconds": 1e-6},
    "model": {
        "gate": {"kind": "linear"},
        "experts": {"kind": "linear", "count": 2},
        "combine": {"kind": "log_mixture"},
    },
    "variants": {"linear": {}},
}


@pytest.fixture(scope="session", autouse=True)
def decoded(cache_folder: Path) -> None:
    """Decoded data go to a folder of the tests' own."""


@pytest.fixture(scope="session")
def small_job(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], JobSpec]:
    """The only job of a small study in a folder, with its `job.json`."""
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(write_yaml(RECIPE), encoding="utf-8")

    def create_job(out: Path) -> JobSpec:
        recipe = load_recipe(str(path))
        data = load_data(recipe.data.model_dump(mode="json"), None)
        plan = make_plan(recipe, data, "cpu", 1, out)
        (job,) = plan.jobs(plan.runs)
        job.write()
        return job

    return create_job


@pytest.fixture(scope="session")
def hostile() -> ModuleType:
    """The module `hostile_requests.py` beside this file."""
    path = Path(__file__).with_name("hostile_requests.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mixture(features: int) -> mb.Mixture:
    torch.manual_seed(0)
    experts = [mb.experts.Linear(features, 3) for _ in range(3)]
    return mb.Mixture(mb.gates.Linear(features, 3), experts, combine=mb.LogMixture()).eval()


def open_pictures(folder: Path) -> Explorer:
    rows = torch.randint(256, (70, 1, 8, 8), dtype=torch.uint8), torch.randint(3, (70,))
    return explore_model(mixture(64), rows, classes=["ant", "bee", "<cow>"])


def open_numbers(folder: Path) -> Explorer:
    return explore_model(mixture(4), (torch.randn(70, 4), torch.randint(3, (70,))))


def open_table(folder: Path) -> Explorer:
    size, color = np.linspace(0, 9, 80), np.array(["red", "blue"] * 40)
    path = folder / "t.csv"
    pd.DataFrame({"size": size, "color": color, "price": size * 9}).to_csv(path, index=False)
    recipe = {
        "name": "numbers",
        "data": {"sets": [{"kind": "csv", "path": str(path), "target": "price"}]},
        "task": "regression",
        "training": {"epochs": 1, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 1e-2}},
        "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
        "variants": {"soft": {}},
    }
    return explore_run(mb.lab.run(recipe, folder / "study", workers=1) / "soft" / "seed-0")


OPENERS = {"pictures": open_pictures, "numbers": open_numbers, "table": open_table}


@pytest.fixture(scope="session")
def servers(hostile: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """A client of the server of an explorer, by the kind of its rows."""
    from moebius.lab.explorer.server import Server

    servers: dict[str, Server] = {}

    def serve(kind: str) -> Any:
        if kind not in servers:
            servers[kind] = Server(OPENERS[kind](tmp_path_factory.mktemp(kind)))
        return hostile.Caller(servers[kind].url, lambda: len(servers[kind]._server.server_state.connections))

    yield serve
    for server in servers.values():
        server.close()


@pytest.fixture
def caller(request: pytest.FixtureRequest, servers: Callable[[str], Any]) -> Any:
    """A client of an explorer of pictures, or of the kind that a test names."""
    return servers(getattr(request, "param", "pictures"))


@pytest.fixture
def faults(caller: Any, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """What the server and its event loop have complained of."""
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield lambda: [record.exc_text or record.getMessage() for record in caplog.records if record.levelno > 30]
    for logger in loggers:
        logger.removeHandler(caplog.handler)
