"""Studies whose experts are a stack, and whose models are layers: trained, evaluated, reported, loaded, predicted."""

import json

import pandas as pd
import pytest
from PIL import Image
from torch import nn

import moebius as mb
from moebius.kit.errors import RecipeError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.sources.hub import Hub
from moebius.lab.predict import predict
from moebius.lab.recipe.load import load_recipe
from moebius.lab.study.run import run

RECIPE = """
name: sparse
data: {sets: [SOURCE], size: SIZE, train_rows: 400, test_rows: 60}
training: {epochs: 1, batch_size: 50, optimizer: {kind: adam, lr: 1e-2}, precision: fp32}
variants:
  grouped:
    gate: {kind: linear}
    router: {kind: top_k, k: 2}
    experts: {kind: mlp, hidden: [16], count: 4}
    execution: grouped
    training: {precision: bf16}
  layers:
    layers: [{kind: linear, classes: 32}, {kind: sparse_ffn, hidden: 16, experts: 4, k: 1}, {kind: linear}]
    training: {losses: [{kind: importance, weight: 0.1}]}
report: {one_expert: {floor: layers, bound: grouped}}
"""


def train(tmp_path, source, size, data_dir=None):
    path = tmp_path / "sparse.yaml"
    path.write_text(RECIPE.replace("SOURCE", source).replace("SIZE", str(size)), encoding="utf-8")
    out = tmp_path / "out"
    run(load_recipe(str(path)), out=out, device="cpu", workers=1, data_dir=data_dir)
    return out


def check_study(out, image_of_row):
    results = json.loads((out / "results.json").read_text())
    assert [sorted(results["costs"][name]) for name in ("grouped", "layers")] == [["as_trained", "one_expert"]] * 2
    for variant, gate, active in (("grouped", "gate", 2.0), ("layers", "1.mixture.gate", 1.0)):
        folder = out / variant / "seed-0"
        entry = json.loads((folder / "result.json").read_text())
        active_experts = {"train": active, "test": active}
        assert entry["gates"] == {gate: {"experts": 4, "learned": True, "active_experts": active_experts}}
        assert 0 < entry["loss"]["test"] < 10
        model = mb.load(folder)
        assert any(isinstance(part, mb.Stack) for part in model.modules())
        table = pd.read_parquet(folder / "routing.parquet").query("split == 'test'").head(5)
        predictions = predict(folder, [image_of_row(row) for row in range(5)])
        for prediction, row in zip(predictions, table.to_dict("records"), strict=True):
            assert prediction.probability == pytest.approx(row["probability"], abs=1e-4)
            weights = {expert: row[f"{gate}_{expert}"] for expert in range(4) if row[f"{gate}_{expert}"] > 0}
            assert dict(prediction.experts) == pytest.approx(weights, abs=1e-4)
    stacked = json.loads((out / "grouped" / "seed-0" / "result.json").read_text())
    assert [expert["paths"] for expert in stacked["experts_alone"]] == [[f"experts.{n}"] for n in range(4)]
    assert not any(expert["frozen"] for expert in stacked["experts_alone"])
    assert stacked["one_expert"] is not None
    assert isinstance(mb.load(out / "layers" / "seed-0"), nn.Sequential)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "grouped" in page
    assert "layers" in page


def save_rows(tmp_path, images):
    def image_of_row(row):
        path = tmp_path / f"{row}.png"
        Image.fromarray(images[row, 0].numpy()).save(path)
        return path

    return image_of_row


def test_on_digits(tmp_path):
    out = train(tmp_path, "{kind: digits}", 8)
    data = load_sets([Digits()], size=8, train_rows=400, test_rows=60)
    check_study(out, save_rows(tmp_path, data.test.images))


def test_on_mnist(tmp_path, real_data):
    out = train(tmp_path, "{kind: hub, name: ylecun/mnist}", 28, real_data)
    data = load_sets([Hub("ylecun/mnist")], size=28, train_rows=400, test_rows=60, data_dir=real_data)
    check_study(out, save_rows(tmp_path, data.test.images))


def test_a_run_that_a_stack_trains_has_the_numbers_of_the_list(planned, record, tmp_path):
    """With the same rows and the same first values; sums in another order differ in the last bits."""
    change = "variants.linear.router={kind: top_k, k: 1}"
    losses = []
    for execution in ("gather", "loop"):
        study = planned(tmp_path / execution, change, f"variants.linear.execution={execution}", "training.epochs=1")
        record().train_job(study.plan.runs[:1], study.data)
        entry = json.loads((tmp_path / execution / "linear" / "seed-0" / "result.json").read_text())
        losses.append(entry["loss"]["test"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_attention_to_features_trains_and_comes_back(tmp_path):
    layer = {
        "kind": "attentive_mixture",
        "gate": {"kind": "linear"},
        "bodies": [{"kind": "mlp", "classes": 12, "hidden": [8], "count": 2}, {"kind": "linear", "classes": 12}],
        "heads": {"kind": "linear"},
        "gate_features": 5,
        "dim": 4,
    }
    top = {**layer, "router": {"kind": "top_k", "k": 1}}
    recipe = {
        "name": "attention",
        "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 200, "test_rows": 50},
        "training": {"epochs": 8, "batch_size": 20, "optimizer": {"kind": "adam", "lr": 1e-2}},
        "variants": {"attention": {"layers": [layer]}, "top": {"layers": [top]}},
    }
    out = mb.lab.run(recipe, tmp_path / "out", workers=1)
    runs = {run["variant"]: run for run in json.loads((out / "results.json").read_text())["runs"]}
    assert runs["attention"]["accuracy"]["test"] > 0.5
    assert runs["top"]["gates"]["gate"]["active_experts"]["test"] == 1
    model = mb.load(out / "attention" / "seed-0")
    assert isinstance(model, mb.layers.AttentiveMixture)
    assert (model.query.in_features, model.key.in_features, model.key.out_features) == (5, 12, 4)
    rows = load_sets([Digits()], size=8, train_rows=200, test_rows=50).test
    accuracy = (model(rows.images.float() / 255).argmax(1) == rows.labels).double().mean().item()
    assert accuracy == pytest.approx(runs["attention"]["accuracy"]["test"])
    for change, text in (
        ({"dim": 0}, "dim: needs a whole number"),
        ({"heads": None}, "heads: needs a mapping with a kind"),
    ):
        with pytest.raises(RecipeError, match=text):
            mb.lab.run({**recipe, "variants": {"wrong": {"layers": [{**layer, **change}]}}}, tmp_path / "wrong")
