"""Studies of tasks other than classification, from recipe to report and prediction."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import moebius as mb
from moebius.kit.errors import ArgumentError, RecipeError, StudyError
from moebius.lab.cli import app
from moebius.lab.predict import predict, predict_rows

TRAINING = {"epochs": 15, "batch_size": 32, "optimizer": {"kind": "adam", "lr": 0.01}}
MODEL = {"gate": {"kind": "table", "hidden": [8]}, "experts": {"kind": "table", "count": 3, "hidden": [16]}}


@pytest.fixture(scope="module")
def regimes(tmp_path_factory):
    recipe = {
        "name": "regimes",
        "data": {"sets": [{"kind": "regimes", "rows": 1500, "regimes": 3}], "validation": 0.1},
        "task": {"kind": "regression", "loss": "huber"},
        "training": {**TRAINING, "losses": [{"kind": "best_expert", "weight": 0.5}]},
        "model": MODEL,
        "variants": {
            "one": {"gate": {"kind": "uniform"}, "experts": {"count": 1}, "training": {"losses": []}},
            "soft": {},
            "told": {"gate": {"kind": "domain"}},
        },
        "seeds": 2,
        "report": {"one_expert": {"floor": "one", "bound": "told"}},
    }
    return mb.lab.run(recipe, tmp_path_factory.mktemp("regimes") / "study", workers=2)


def test_results_are_of_the_tasks_score(regimes):
    results = json.loads((regimes / "results.json").read_text())
    scores = {(run["variant"], run["seed"]): run["r2"]["test"] for run in results["runs"]}
    assert scores["told", 0] > 0.9 > scores["one", 0]
    soft = next(run for run in results["runs"] if run["variant"] == "soft")
    assert soft["metrics"]["test"]["squared_error"] == pytest.approx(1 - soft["r2"]["test"], rel=0.2)
    # A gate that picks the best expert for each row is no worse than any of them.
    assert soft["oracle"] >= max(expert["r2"] for expert in soft["experts_alone"])
    assert soft["experts_alone"][0]["by_class"] == []
    assert soft["one_expert"]["r2"] <= soft["oracle"]
    table = pd.read_csv(regimes / "results.csv")
    assert {"train_r2", "test_r2", "test_r2:regime 1", "test_absolute_error"} <= set(table.columns)


def test_rows_are_in_the_units_of_the_table(regimes):
    rows = pq.read_table(regimes / "soft" / "seed-0" / "routing.parquet").to_pandas()
    test = rows[rows["split"] == "test"]
    spread = np.square(test["label"] - test["label"].mean()).mean()
    r2 = 1 - np.square(test["label"] - test["prediction"]).mean() / spread
    run = json.loads((regimes / "soft" / "seed-0" / "result.json").read_text())
    assert r2 == pytest.approx(run["r2"]["test"], abs=0.02)
    assert test["x:x"].between(-1, 1).all()
    assert test["score"].mean() == pytest.approx(run["r2"]["test"], abs=1e-5)


def test_the_page_says_what_was_learned(regimes):
    page = (regimes / "report.html").read_text()
    for text in (
        "R² by epoch",
        "Functions",
        "Do experts follow the data sets?",
        "Further metrics",
        "mean squared error",
    ):
        assert text in page
    assert "accuracy" not in page.split('id="about"')[0].replace("accuracy_", "")
    assert "Confusion" not in page
    agreement = pd.read_csv(regimes / "tables" / "agreement.csv")
    told = agreement[(agreement["variant"] == "told") & (agreement["split"] == "test")]
    assert told["adjusted_information"].tolist() == pytest.approx([1, 1])


def test_predictions_are_those_of_the_run(regimes):
    run = regimes / "told" / "seed-0"
    rows = pq.read_table(run / "routing.parquet").to_pandas()
    rows = rows[rows["split"] == "test"].head(20)
    frame = pd.DataFrame({"x": rows["x:x"], "regime": [f"regime {number}" for number in rows["domain"]]})
    predicted = predict_rows(run, frame)
    assert predicted["y"].to_numpy() == pytest.approx(rows["prediction"].to_numpy(), abs=1e-4)
    assert predicted.index.equals(frame.index)
    assert predicted["expert"].tolist() == rows["domain"].tolist()
    with pytest.raises(ArgumentError, match="must name the domain of the rows") as caught:
        predict_rows(run, frame[["x"]])
    assert caught.value.fix == "--domain 'regime 0'    # or a column regime"
    with pytest.raises(ArgumentError, match="needs one of regime 0, regime 1, regime 2, got 'regime 9'"):
        predict_rows(run, frame, "regime 9")


def test_the_command_predicts_rows_of_files(regimes, tmp_path):
    pd.DataFrame({"x": np.linspace(-1, 1, 30)}).to_csv(tmp_path / "x.csv", index=False)
    pd.DataFrame({"x": [0.5]}).to_parquet(tmp_path / "x.parquet")
    run, out = str(regimes / "soft" / "seed-0"), tmp_path / "out.csv"
    result = CliRunner().invoke(app, ["predict", run, str(tmp_path / "x.csv"), "--out", str(out)])
    assert (result.exit_code, "10 more rows" in result.output) == (0, True)
    assert pd.read_csv(out).columns.tolist() == ["row", "y", "expert", "weight"]
    both = CliRunner().invoke(app, ["predict", run, str(tmp_path / "x.csv"), str(tmp_path / "x.parquet")])
    assert (both.exit_code, "11 more rows" in both.output) == (0, True)


def test_another_task_is_another_study(regimes):
    recipe = json.loads((regimes / "study.json").read_text())["recipe"]
    with pytest.raises(StudyError, match=r"holds another study.*task.*huber"):
        mb.lab.run({**recipe, "task": {"kind": "regression", "loss": "mse"}}, regimes, workers=1)


def test_a_study_of_labels(tmp_path):
    random = np.random.default_rng(0)
    x = random.random((400, 2))
    labels = {"big": x.sum(1) > 1, "left": x[:, 0] < 0.5}
    pd.DataFrame({"a": x[:, 0], "b": x[:, 1], **labels}).to_csv(tmp_path / "t.csv", index=False)
    recipe = {
        "name": "labels",
        "data": {"sets": [{"kind": "csv", "path": str(tmp_path / "t.csv"), "target": ["big", "left"]}]},
        "task": "multi_label",
        "training": TRAINING,
        "model": MODEL,
        "variants": {"soft": {}},
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=1)
    (run,) = json.loads((folder / "results.json").read_text())["runs"]
    assert run["label_accuracy"]["test"] > 0.9
    predicted = predict_rows(folder / "soft" / "seed-0", pd.DataFrame({"a": [0.1, 0.9], "b": [0.2, 0.9]}))
    assert predicted[["big", "left"]].to_numpy().tolist() == [["False", "True"], ["True", "False"]]
    assert (predicted["left probability"] > 0.5).tolist() == [True, False]
    assert "label accuracy by epoch" in (folder / "report.html").read_text().lower()


def test_stages_of_a_regression_choose_rows_by_domain(tmp_path):
    stages = {f"r{number}": {"domains": [number], "network": {"kind": "table", "hidden": [16]}} for number in range(3)}
    experts = [{"kind": "stage", "stage": name} for name in stages]
    recipe = {
        "name": "pretrained",
        "data": {"sets": [{"kind": "regimes", "rows": 900, "regimes": 3}]},
        "task": "regression",
        "training": TRAINING,
        "stages": stages,
        "model": {"gate": {"kind": "domain"}, "experts": experts},
        "variants": {"told": {}},
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=1)
    results = json.loads((folder / "results.json").read_text())
    assert results["runs"][0]["r2"]["test"] > 0.9
    assert {stage["stage"]: stage["classes"] for stage in results["stages"]} == {"r0": [], "r1": [], "r2": []}


def test_a_study_of_two_tasks_that_rows_may_lack(tmp_path):
    random = np.random.default_rng(0)
    x = random.random((350, 2))
    frame = pd.DataFrame(
        {"a": x[:, 0], "b": x[:, 1], "kind": np.where(x[:, 0] > 0.5, "high", "low"), "kind_2": 9 * x[:, 1]}
    )
    frame.loc[::7, "kind"], frame.loc[1::7, "kind_2"] = None, np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    layer = {"kind": "multi_gate_mixture", "gates": {"kind": "linear"}, "towers": {"kind": "linear"}}
    cgc = {**layer, "kind": "cgc", "experts": {"kind": "table", "classes": 4}}
    recipe = {
        "name": "two",
        "data": {"sets": [{"kind": "csv", "path": str(tmp_path / "t.csv"), "target": ["kind", "kind_2"]}]},
        "task": {"kind": "multi_task", "tasks": {"kind": "classification", "kind_2": "regression"}},
        "training": {**TRAINING, "losses": [{"kind": "batch_entropy", "weight": 0.01}]},
        "variants": {
            "pooled": {"layers": [{**layer, "experts": {"kind": "table", "classes": 4, "count": 3}}]},
            "apart": {"layers": [cgc], "training": {"losses": []}},
        },
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=1)
    runs = json.loads((folder / "results.json").read_text())["runs"]
    for run in runs:
        assert run["metrics"]["test"]["kind_accuracy"] > 0.9
        assert run["metrics"]["test"]["kind_2_r2"] > 0.9
    assert list(runs[0]["gates"]) == ["gates.kind", "gates.kind_2"]
    assert runs[0]["one_expert"]["mean_score"] <= 1
    page = (folder / "report.html").read_text()
    assert "pooled, gate gates.kind_2" in page
    assert "kind 2 R²" in page
    predicted = predict_rows(folder / "pooled" / "seed-0", pd.DataFrame({"a": [0.1, 0.9], "b": [0.5, 1.0]}))
    assert predicted["kind"].tolist() == ["low", "high"]
    assert predicted.columns.tolist() == ["kind", "kind probability", "kind_2"]
    assert predicted["kind_2"].to_numpy() == pytest.approx([4.5, 9], abs=1)
    with pytest.raises(RecipeError, match="where the data have the tasks kind with 10, kind_2 with 1"):
        mb.lab.run({**recipe, "variants": {"plain": MODEL}}, tmp_path / "other", workers=1)


def test_a_study_of_pixels_leaves_pictures(tmp_path):
    layer = {"kind": "position_mixture", "gate": {"kind": "unet", "filters": [4]}}
    recipe = {
        "name": "pixels",
        "data": {"sets": [{"kind": "scenes", "scenes": 120}], "size": 16, "validation": 0.1},
        "task": {"kind": "tokens", "channels": "first"},
        "training": {**TRAINING, "epochs": 2},
        "variants": {"by-pixel": {"layers": [{**layer, "experts": {"kind": "unet", "filters": [8], "count": 2}}]}},
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=1)
    (run,) = json.loads((folder / "results.json").read_text())["runs"]
    assert 0 < run["metrics"]["test"]["mean_iou"] < run["token_accuracy"]["test"]
    assert run["oracle"] >= max(expert["token_accuracy"] for expert in run["experts_alone"])
    examples = load_file(folder / "by-pixel" / "seed-0" / "examples.safetensors")
    assert {name: tuple(array.shape) for name, array in examples.items()} == {
        "images": (6, 1, 16, 16),
        **dict.fromkeys(("classes", "predictions", "experts"), (6, 16, 16)),
    }
    page = (folder / "report.html").read_text()
    assert "winning experts" in page
    assert "data:image/png;base64," in page
    with pytest.raises(StudyError, match="learned tokens, and only a class of each image is printed here"):
        predict(folder / "by-pixel" / "seed-0", [tmp_path / "a.png"])
    for task, message in ((None, "rows have a class for each pixel"), ("regression", "has 11 classes")):
        wrong = {**recipe, "variants": {"plain": {"gate": {"kind": "linear"}, "experts": {"kind": "linear"}}}}
        wrong = {**wrong, **({"task": task} if task else {})}
        if task is None:
            wrong = {name: value for name, value in wrong.items() if name != "task"}
        with pytest.raises(StudyError, match=message):
            mb.lab.run(wrong, tmp_path / "wrong", workers=1)
    last = {**recipe, "task": {"kind": "tokens", "channels": "last"}}
    with pytest.raises(RecipeError, match="has its classes on another axis than the task says"):
        mb.lab.run(last, tmp_path / "wrong", workers=1)
    augmented = {**recipe["training"], "augment": [{"kind": "flip"}]}
    with pytest.raises(RecipeError, match="changes images, and not the classes of their pixels"):
        mb.lab.run({**recipe, "training": augmented}, tmp_path / "wrong", workers=1)


def test_a_study_of_densities(tmp_path):
    recipe = {
        "name": "densities",
        "data": {"sets": [{"kind": "regimes", "rows": 900, "regimes": 3}]},
        "task": "gaussian",
        "training": {**TRAINING, "epochs": 8},
        "model": {**MODEL, "combine": {"kind": "components"}},
        "variants": {"one": {"gate": {"kind": "uniform"}, "experts": {"count": 1}}, "soft": {}},
    }
    folder = mb.lab.run(recipe, tmp_path / "study", workers=1)
    runs = {run["variant"]: run for run in json.loads((folder / "results.json").read_text())["runs"]}
    assert runs["soft"]["information_gain"]["test"] > runs["one"]["information_gain"]["test"] > 0
    assert runs["soft"]["metrics"]["test"]["coverage_90"] == pytest.approx(0.9, abs=0.08)
    predicted = predict_rows(folder / "soft" / "seed-0", pd.DataFrame({"x": [0.5, -0.5]}))
    assert (predicted["y lower"] < predicted["y"]).all()
    assert (predicted["y"] < predicted["y upper"]).all()
    assert (predicted["y scale"] > 0).all()
