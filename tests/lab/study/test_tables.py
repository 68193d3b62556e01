"""Studies of tables, from recipe to report; two processes with a thread each, which no other load slows down much."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import moebius as mb
from moebius.kit.errors import StudyError
from moebius.lab.cli import app
from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.predict import load_run, predict

MODEL = {"gate": {"kind": "table", "hidden": [8]}, "experts": {"kind": "table", "count": 2, "hidden": [16]}}
TRAINING = {"epochs": 12, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.01}}


def test_a_study_of_a_bundled_table(tmp_path):
    recipe = {
        "name": "tumours",
        "data": {"sets": [{"kind": "sklearn", "name": "breast_cancer"}], "validation": 0.1},
        "training": {**TRAINING, "epochs": 4},
        "model": MODEL,
        "variants": {"plain": None, "piecewise": {"experts": {"numeric": "piecewise"}}},
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=2)
    results = json.loads((folder / "results.json").read_text())
    assert all(run["accuracy"]["test"] > 0.9 for run in results["runs"])
    page = (folder / "report.html").read_text()
    assert re.search(r"breast_cancer; 410 training, \d+ held-out, 113 test rows; 2 classes", page)
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0


@pytest.fixture(scope="module")
def customers(tmp_path_factory):
    """A table with categories and missing values, of which either column alone tells nothing, and its study."""
    folder, random = tmp_path_factory.mktemp("customers"), np.random.default_rng(0)
    age, city = random.integers(18, 80, 600).astype(float), random.choice(["Rome", "Oslo", "Lima"], 600)
    bought = np.where((age > 49) == (city == "Oslo"), "yes", "no")
    frame = pd.DataFrame({"age": age, "city": city, "bought": bought})
    frame.loc[::30, "age"] = np.nan
    frame.loc[::40, "city"] = None
    frame.to_csv(folder / "customers.csv", index=False)
    recipe = {
        "name": "customers",
        "data": {"sets": [{"kind": "csv", "path": str(folder / "customers.csv"), "target": "bought"}]},
        "training": TRAINING,
        "model": MODEL,
        "variants": {
            "plain": None,
            "piecewise": {"gate": {"numeric": "piecewise"}, "experts": {"numeric": "piecewise", "bins": 4}},
            "gumbel": {
                "layers": [
                    {"kind": "table", "numeric": "piecewise", "hidden": [], "classes": 16},
                    {
                        "kind": "mixture",
                        "gate": {"kind": "linear"},
                        "router": {"kind": "gumbel"},
                        "experts": {"kind": "mlp", "count": 3, "hidden": [16]},
                    },
                ]
            },
        },
    }
    return recipe, mb.lab.run(recipe, folder / "study", seeds=2, workers=2, cohorts="never")


def test_categories_and_missing_values_are_learned(customers):
    _, folder = customers
    runs = json.loads((folder / "results.json").read_text())["runs"]
    assert len(runs) == 6
    # Where nothing is missing the classes follow from the columns; the majority class alone has .55.
    assert all(run["accuracy"]["test"] > 0.85 for run in runs)
    assert (folder / "report.html").exists()


def test_the_header_of_the_model_encodes_later_rows(customers):
    _, folder = customers
    model, about = load_run(folder / "piecewise" / "seed-0")
    columns = TableColumns.from_values(about["columns"])
    assert columns.features == ("age", "age is missing", "city")
    rows = pd.DataFrame({"age": [70.0, 25.0, 70.0, 25.0], "city": ["Oslo", "Oslo", "Rome", "Lima"]})
    with torch.inference_mode():
        labels = model(columns.encode(rows)).argmax(-1).tolist()
    assert [about["classes"][label] for label in labels] == ["yes", "no", "no", "yes"]


def test_the_bins_are_those_of_the_training_rows_in_every_seed(customers):
    _, folder = customers
    files = [load_file(folder / "piecewise" / f"seed-{seed}" / "model.safetensors") for seed in (0, 1)]
    edges = [[tensor for name, tensor in file.items() if name.endswith("edges")] for file in files]
    assert len(edges[0]) >= 2
    assert all(torch.equal(first, second) for first, second in zip(*edges, strict=True))
    # Ages, standardised, and whether one is missing.
    assert -1.8 < edges[0][0][0, 0] < -1.5
    assert edges[0][0][1].tolist()[:2] == [0, 1]


def test_seeds_that_train_together_end_as_they_do_alone(customers, tmp_path):
    recipe, folder = customers
    recipe = {**recipe, "variants": {name: recipe["variants"][name] for name in ("plain", "piecewise")}}
    together = mb.lab.run(recipe, tmp_path / "study", seeds=2, workers=2, cohorts="always")
    assert sorted(json.loads((together / "study.json").read_text())["jobs"]) == [
        ["piecewise/seed-0", "piecewise/seed-1"],
        ["plain/seed-0", "plain/seed-1"],
    ]
    for name in ("plain", "piecewise"):
        runs = [load_file(path / name / "seed-1" / "model.safetensors") for path in (folder, together)]
        torch.testing.assert_close(runs[0], runs[1], rtol=1e-3, atol=1e-3)


def test_a_stage_is_trained_on_a_table_and_keeps_its_bins(customers, tmp_path):
    recipe, _ = customers
    stage = {"network": {"kind": "table", "numeric": "piecewise"}, "train_rows": 100, "training": {"epochs": 1}}
    variants = {"staged": {"experts": [{"kind": "stage", "stage": "one"}, {"kind": "table"}]}}
    folder = mb.lab.run({**recipe, "stages": {"one": stage}, "variants": variants}, tmp_path / "study", workers=2)
    (path,) = (folder / "stages").glob("one-*/seed-0/model.safetensors")
    staged = {name: tensor for name, tensor in load_file(path).items() if name.endswith("edges")}
    whole = load_file(folder / "staged" / "seed-0" / "model.safetensors")
    (edges,) = [tensor for name, tensor in whole.items() if name.endswith("edges")]
    assert torch.equal(edges, *staged.values())


def test_predict_says_that_a_run_is_of_a_table(customers, tmp_path):
    _, folder = customers
    with pytest.raises(StudyError, match="was trained on a table, and not on images") as caught:
        predict(folder / "plain" / "seed-0", [tmp_path / "a.png"])
    assert "ROWS.csv" in caught.value.fix


def test_a_target_of_numbers_is_refused_before_a_folder_is_made(tmp_path):
    rows = pd.DataFrame({"a": np.arange(60) / 7, "y": np.arange(60) / 3})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    recipe = {
        "name": "numbers",
        "data": {"sets": [{"kind": "csv", "path": str(tmp_path / "rows.csv"), "target": "y"}]},
        "model": MODEL,
        "variants": {"plain": None},
    }
    with pytest.raises(StudyError, match="the target 'y' is numbers, and the task learns classes") as caught:
        mb.lab.run(recipe, tmp_path / "study", workers=1)
    assert "task: regression    # or in data.sets target_type: {y: classes}" in (caught.value.fix or "")
    assert not (tmp_path / "study").exists()
