"""What a finished run leaves in its folder."""

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

import moebius as mb
from moebius.lab.study.run_files import collect, remove_leftovers
from moebius.storage.tensors import stored_tensors

TREE = (
    "variants.linear={gate: {kind: domain}, router: {kind: argmax}, combine: {kind: weighted_sum}, experts:"
    " [{kind: linear}, {kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 3}}]}"
)


def test_the_entry_of_a_run(planned, record, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    record().train_job((run,), study.data)
    (entry,) = collect(study.plan.runs)  # the other run is not finished
    assert set(entry) == {
        *("variant", "seed", "epoch", "accuracy", "accuracy_by_domain", "loss", "gates", "epochs", "seconds"),
        *("images_per_second", "parameters", "precision", "one_expert", "experts_alone", "oracle", "cached", "trained"),
        *("findings", "versions"),
    }
    assert (entry["variant"], entry["seed"], entry["epoch"]) == ("linear", 0, 2)
    epochs = [json.loads(line) for line in (tmp_path / run.name / "metrics.jsonl").read_text().splitlines()]
    assert entry["epochs"] == epochs
    assert entry["accuracy"] == {"train": epochs[1]["train"]["accuracy"], "test": epochs[1]["test"]["accuracy"]}
    assert entry["loss"] == {"train": epochs[1]["train"]["loss"], "test": epochs[1]["test"]["loss"]}
    assert entry["gates"] == {"gate": {"experts": 2, "learned": True, "active_experts": {"train": 2.0, "test": 2.0}}}
    assert entry["parameters"] == 65 * (2 + 2 * 20)
    assert entry["seconds"] > 0
    assert entry["images_per_second"] > 0
    for split in ("train", "test"):
        assert set(entry["accuracy_by_domain"][split]) == {"digits", "textures"}


def test_one_data_set_is_called_all(planned, record, tmp_path):
    sets = ["data.sets=[{kind: digits}]", "data.test_rows=100"]
    study = planned(tmp_path, *sets)
    run = study.plan.runs[0]
    record().train_job((run,), study.data)
    (entry,) = collect((run,))
    assert set(entry["accuracy_by_domain"]["test"]) == {"all"}


def test_every_gate_has_an_entry_and_columns(planned, record, tmp_path):
    study = planned(tmp_path, TREE)
    run = study.plan.runs[0]
    record().train_job((run,), study.data)
    (entry,) = collect((run,))
    assert list(entry["gates"]) == list(entry["epochs"][0]["gates"]) == ["gate", "experts.1.gate"]
    assert [gate["experts"] for gate in entry["gates"].values()] == [2, 3]
    assert [gate["active_experts"]["test"] for gate in entry["gates"].values()] == [1.0, 3.0]
    assert [gate["learned"] for gate in entry["gates"].values()] == [False, True]
    table = pq.read_table(tmp_path / run.name / "routing.parquet").to_pandas()
    assert (table["gate_1"] == table["domain"]).all()
    reached = table["experts.1.gate_2"].notna()
    assert (reached == (table["domain"] == 1)).all()


def test_routing_and_model_files(planned, record, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    record().train_job((run,), study.data)
    folder = tmp_path / run.name
    table = pq.read_table(folder / "routing.parquet").to_pandas()
    columns = ["split", "row", "label", "prediction", "domain", "loss", "score", "probability", "gate_0", "gate_1"]
    assert list(table.columns) == columns
    test = table[table["split"] == "test"]
    assert (len(test), len(table)) == (200, 320)
    assert test["row"].tolist() == list(range(200))
    assert test["label"].tolist() == study.data.test.labels.tolist()
    (entry,) = collect((run,))
    assert (test["label"] == test["prediction"]).mean() == pytest.approx(entry["accuracy"]["test"])
    assert test["score"].mean() == pytest.approx(entry["accuracy"]["test"])
    assert test["loss"].astype(float).mean() == pytest.approx(entry["loss"]["test"], rel=1e-6)
    assert test[["gate_0", "gate_1"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    about = json.loads((folder / "model.json").read_text())["data"]
    assert about["classes"] == list(study.data.classes)
    model = mb.load(folder)
    tensors = load_file(folder / "model.safetensors")
    assert all(torch.equal(value, tensors[name]) for name, value in stored_tensors(model).items())


def test_temporary_files_are_removed_once_they_are_old(tmp_path):
    for name in (".a.7.tmp", ".tmpEc6D64", "b.tmp"):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / ".a.7.tmp", (0, 0))
    remove_leftovers(tmp_path, 3600)
    assert {path.name for path in tmp_path.iterdir()} == {".tmpEc6D64", "b.tmp"}
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"b.tmp"}


def test_temporary_files_of_a_killed_process_are_removed_where_reports_are_written_too(tmp_path):
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    leftovers = [study / place / ".results.csv.123.tmp.csv" for place in ("", "tables", "figures")]
    for path in (*leftovers, study / "tables" / "results.csv", elsewhere / ".precious.tmp"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    remove_leftovers(study)
    assert [path for path in study.rglob("*") if path.is_file()] == [study / "tables" / "results.csv"]
    shutil.rmtree(study / "figures")
    (study / "figures").symlink_to(elsewhere)
    remove_leftovers(study)
    assert (elsewhere / ".precious.tmp").exists()
