import json

import pytest

import moebius as mb

MODEL = {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}}
RECIPE = {
    "name": "small",
    "data": {"sets": [{"kind": "digits"}, {"kind": "textures", "rows_per_class": 40}], "size": 8, "train_rows": 300},
    "training": {"epochs": 2},
    "model": MODEL,
    "variants": {"poor": {"training": {"optimizer": {"kind": "adam", "lr": 1e-6}}}, "good": {}, "twin": {}},
    "seeds": 3,
}


@pytest.fixture(scope="package")
def study(tmp_path_factory):
    """A model that has learned nothing, one that has, and the same once more."""
    return mb.lab.run(RECIPE, tmp_path_factory.mktemp("comparison") / "study", workers=1)


@pytest.fixture(scope="package")
def other_data(tmp_path_factory):
    """Trained on fewer rows of the same data; and another study, which was tested on other rows."""
    folder = tmp_path_factory.mktemp("other")
    fewer = {**RECIPE, "data": {**RECIPE["data"], "train_rows": 100}, "seeds": 1, "variants": {"good": {}}}
    digits = {**fewer, "data": {"sets": [{"kind": "digits"}], "size": 8}}
    return mb.lab.run(fewer, folder / "fewer", workers=1), mb.lab.run(digits, folder / "digits", workers=1)


@pytest.fixture
def results(study):
    """(variant, seed) → the run's entry."""
    runs = json.loads((study / "results.json").read_text())["runs"]
    return {(run["variant"], run["seed"]): run for run in runs}
