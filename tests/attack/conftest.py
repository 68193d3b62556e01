"""Small studies in folders that somebody else has filled."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
