import json
import random
import time

import pyarrow.parquet as pq
import pytest

import moebius as mb
from moebius.kit.errors import StudyError
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.train_run import collect, result_path, train_run
from moebius.lab.study.workers import prepare_process
from moebius.storage.header import read_header

BITS = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet", "model.json")
TREE = (
    "variants.linear={gate: {kind: domain}, router: {kind: argmax}, combine: {kind: weighted_sum}, experts:"
    " [{kind: linear}, {kind: mixture, gate: {kind: linear}, experts: {kind: linear, count: 3}}]}"
)


def ignore(event):
    pass


def bits(out, run, names=BITS):
    return {name: (out / run.name / name).read_bytes() for name in names}


@pytest.mark.parametrize("number", [0, 1])
def test_a_run_broken_off_at_any_step_leaves_the_same_files(number, planned, tmp_path):
    uninterrupted = planned(tmp_path / "whole", "training.precision=bf16" if number else "training.precision=auto")
    run = uninterrupted.plan.runs[number]
    train_run(run, uninterrupted.data, uninterrupted.out, "cpu", ignore)
    for stop in random.Random(number).sample(range(1, 7), 3):
        out = tmp_path / f"stopped-{stop}"

        def listen(event, stop=stop):
            if event.step == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train_run(run, uninterrupted.data, out, "cpu", listen)
        assert not result_path(out, run).exists()
        events = []
        train_run(run, uninterrupted.data, out, "cpu", events.append)
        assert (events[0].kind, events[0].step) == ("resumed", stop)
        assert bits(out, run) == bits(uninterrupted.out, run)


def test_a_finished_run_is_not_touched(planned, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    train_run(run, study.data, tmp_path, "cpu", ignore)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / run.name).iterdir() if path.is_file()}
    events = []
    train_run(run, study.data, tmp_path, "cpu", events.append)
    assert not events
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_leftovers_of_a_killed_process_are_removed(planned, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    folder = tmp_path / run.name
    (folder / "state").mkdir(parents=True)
    leftovers = [
        folder / ".metrics.jsonl.77.tmp.jsonl",
        folder / "state" / ".checkpoint.safetensors.77.tmp.safetensors",
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    train_run(run, study.data, tmp_path, "cpu", ignore)
    assert not any(path.exists() for path in leftovers)
    assert not list(folder.rglob("*.tmp*"))


def test_a_run_that_another_process_trains_is_refused(planned, tmp_path, monkeypatch):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    monkeypatch.setattr("moebius.lab.study.train_run.ORPHAN_SECONDS", 0.1)
    with folder_lock(tmp_path / run.name / "state"), pytest.raises(StudyError, match="another process"):
        train_run(run, study.data, tmp_path, "cpu", ignore)


def test_a_damaged_checkpoint_is_refused_with_a_fix(planned, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    path = tmp_path / run.name / "state" / "checkpoint.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(StudyError, match="the checkpoint cannot be read") as error:
        train_run(run, study.data, tmp_path, "cpu", ignore)
    assert error.value.fix is not None
    assert error.value.fix.startswith(f"mv {tmp_path / run.name}/state ")
    assert path.read_bytes() == b"no checkpoint"


def test_the_entry_of_a_run(planned, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    train_run(run, study.data, tmp_path, "cpu", ignore)
    (entry,) = collect(tmp_path, study.plan.runs)  # the other run is not finished
    assert set(entry) == {
        *("variant", "seed", "epoch", "accuracy", "accuracy_by_domain", "loss", "activation", "activation_by_class"),
        *("gates", "epochs", "seconds", "images_per_second", "parameters", "experts", "precision"),
        *("active_experts", "one_expert", "experts_alone", "oracle", "cached", "trained"),
    }
    assert (entry["variant"], entry["seed"], entry["epoch"]) == ("linear", 0, 2)
    epochs = [json.loads(line) for line in (tmp_path / run.name / "metrics.jsonl").read_text().splitlines()]
    assert entry["epochs"] == epochs
    assert entry["accuracy"] == {"train": epochs[1]["train"]["accuracy"], "test": epochs[1]["test"]["accuracy"]}
    assert entry["loss"] == {"train": epochs[1]["train"]["loss"], "test": epochs[1]["test"]["loss"]}
    assert entry["gates"] == {}
    assert entry["experts"] == 2
    assert entry["parameters"] == 65 * (2 + 2 * 20)
    assert entry["seconds"] > 0
    assert entry["images_per_second"] > 0
    for split in ("train", "test"):
        assert set(entry["activation"][split]) == set(entry["accuracy_by_domain"][split]) == {"digits", "textures"}
        assert set(entry["activation_by_class"][split]) <= set(study.data.classes)
        rows = [*entry["activation"][split].values(), *entry["activation_by_class"][split].values()]
        assert all(sum(row) == pytest.approx(1, abs=1e-6) and len(row) == 2 for row in rows)


def test_one_data_set_is_called_all(planned, tmp_path):
    sets = ["data.sets=[{kind: digits}]", "data.test_rows=100"]
    study = planned(tmp_path, *sets)
    run = study.plan.runs[0]
    train_run(run, study.data, tmp_path, "cpu", ignore)
    (entry,) = collect(tmp_path, (run,))
    assert set(entry["activation"]["test"]) == {"all"}
    assert set(entry["activation_by_class"]["test"]) == set("0123456789")


def test_nested_gates_have_entries_of_their_own(planned, tmp_path):
    study = planned(tmp_path, TREE)
    run = study.plan.runs[0]
    train_run(run, study.data, tmp_path, "cpu", ignore)
    (entry,) = collect(tmp_path, (run,))
    assert entry["activation"]["test"] == {"digits": [1.0, 0.0], "textures": [0.0, 1.0]}
    assert set(entry["gates"]) == {"experts.1"}
    nested = entry["gates"]["experts.1"]
    assert set(nested["activation"]["test"]) == {"textures"}  # digits never reach it
    assert sum(nested["activation"]["test"]["textures"]) == pytest.approx(1, abs=1e-6)
    assert all(name.startswith("textures") for name in nested["activation_by_class"]["test"])
    table = pq.read_table(tmp_path / run.name / "routing.parquet").to_pandas()
    asked = table["gate[experts.1]_0"].notna()
    assert (asked == (table["domain"] == 1)).all()


def test_routing_and_model_files(planned, tmp_path):
    study = planned(tmp_path)
    run = study.plan.runs[0]
    train_run(run, study.data, tmp_path, "cpu", ignore)
    folder = tmp_path / run.name
    table = pq.read_table(folder / "routing.parquet").to_pandas()
    columns = ["split", "row", "label", "prediction", "domain", "probability", "loss", "gate_0", "gate_1"]
    assert list(table.columns) == columns
    test = table[table["split"] == "test"]
    assert (len(test), len(table)) == (200, 320)
    assert test["row"].tolist() == list(range(200))
    assert test["label"].tolist() == study.data.test.labels.tolist()
    (entry,) = collect(tmp_path, (run,))
    assert (test["label"] == test["prediction"]).mean() == pytest.approx(entry["accuracy"]["test"])
    assert test["loss"].astype(float).mean() == pytest.approx(entry["loss"]["test"], rel=1e-6)
    by_domain = test.groupby("domain")[["gate_0", "gate_1"]].mean()
    assert by_domain.loc[0].tolist() == pytest.approx(entry["activation"]["test"]["digits"], rel=1e-5)
    data = read_header(folder)["data"]
    assert data["classes"] == list(study.data.classes)
    assert data["precision"] == "fp32"
    x, labels = study.data.test.images.float() / 255, study.data.test.labels
    correct = mb.load(folder)(x, {"domain": study.data.test.domains}).argmax(1) == labels
    assert correct.double().mean().item() == pytest.approx(entry["accuracy"]["test"])


TRAIN = """
import sys
from pathlib import Path
from moebius.lab.recipe.load import load_recipe
from moebius.lab.study.train_run import train_run
from moebius.lab.study.plan import make_plan
from moebius.lab.study.run import LoadData
from moebius.lab.study.workers import prepare_process

recipe, out = load_recipe(sys.argv[1], sys.argv[3:]), Path(sys.argv[2])
data = LoadData(recipe.data.model_dump(mode="json"), None)()
prepare_process(1)
train_run(make_plan(recipe, data, "cpu", 1, out).runs[0], data, out, "cpu", lambda event: print(event.kind, event.step))
"""


def test_a_process_killed_at_a_random_moment_ends_in_the_same_bits(small_recipe, planned, started, tmp_path):
    overrides = (
        "training.epochs=12",
        "training.batch_size=20",
        "training.checkpoint_seconds=0.1",
        "data.train_rows=1500",
    )
    uninterrupted, out = planned(tmp_path / "whole", *overrides), tmp_path / "pieces"
    run = uninterrupted.plan.runs[0]
    prepare_process(1)
    train_run(run, uninterrupted.data, uninterrupted.out, "cpu", ignore)
    checkpoint = out / run.name / "state" / "checkpoint.safetensors"
    process = started(small_recipe().reference, out, *overrides, code=TRAIN)
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    time.sleep(0.2 * random.Random().random())
    assert process.poll() is None
    process.kill()
    process.wait()
    again = started(small_recipe().reference, out, *overrides, code=TRAIN)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert output.startswith("resumed ")
    assert int(output.split()[1]) > 0
    assert bits(out, run) == bits(uninterrupted.out, run)
    assert not list(out.rglob("*.tmp*"))
