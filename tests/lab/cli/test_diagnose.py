"""`moebius diagnose`: what it prints for one run and for several, as text and as JSON, and what it refuses."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import moebius as mb
from moebius.kit.registry import kinds
from moebius.lab.cli import app
from moebius.lab.remedies import _fitting
from moebius.lab.study.diagnose_run import SCHEMA, diagnose_run, find_runs

DATA = {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 400, "test_rows": 150}
RECIPE = {
    "name": "small",
    "data": {**DATA, "validation_rows": 300},
    "training": {"epochs": 4, "optimizer": {"kind": "adam", "lr": 1e-2}},
    "model": {
        "gate": {"kind": "linear"},
        "experts": {"kind": "linear", "count": 3},
        "combine": {"kind": "log_mixture"},
    },
    # Nothing balances the second.
    "variants": {"soft": {}, "switch": {"router": {"kind": "top_k", "k": 1}}, "uniform": {"gate": {"kind": "uniform"}}},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield mb.lab.run(RECIPE, folder / "small", workers=1, seeds=2)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(_fitting, "EPOCH_STEPS", 10)
    monkeypatch.setattr(_fitting, "EPOCHS", 3)


def invoke(*arguments, columns=80):
    return CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["diagnose", *map(str, arguments)])


def test_one_run(study):
    run = study / "switch" / "seed-0"
    result = invoke(run)
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"{run}: 1 gate, 300 held-out rows"
    diagnosis = diagnose_run(run).diagnosis
    assert diagnosis.findings
    for finding in diagnosis:
        assert f"{finding.code} {finding.kind} · {finding.gate}" in lines
    assert {line.split()[0] for line in lines[3:6] if line.startswith("  ")} & {"seen"}
    # The path of a test may be long; it is not broken, so that it can be pasted.
    assert all(len(line) <= 80 for line in lines[1:])


def test_json_is_one_document_of_plain_numbers(study):
    runs = [study / "switch" / "seed-1", study / "soft"]
    result = invoke("--json", *runs)
    assert result.exit_code == 0
    document = json.loads(result.output)
    assert document["schema"] == SCHEMA
    assert [(run["variant"], run["seed"]) for run in document["runs"]] == [("switch", 1), ("soft", 0), ("soft", 1)]
    first = document["runs"][0]
    assert first["rows"] == {"split": "validation", "count": 300, "examined": 300}
    assert first["gates"] == [{"gate": "gate", "rows": 300, "experts": 3, "k": 1}]
    assert first["trials"] == []
    for finding in first["findings"]:
        assert set(finding) >= {"code", "kind", "gate", "evidence", "effect", "low", "high", "null", "remedies"}


def test_a_study_is_a_table(study):
    result = invoke(study)
    assert result.exit_code == 0
    assert "6 runs of 3 variants, 300 held-out rows of each" in result.output
    for variant in RECIPE["variants"]:
        assert any(line.strip().startswith(variant) for line in result.output.splitlines())
    assert "2 of 2" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_try_prints_gains_and_json_has_them(study, short):
    run = study / "switch" / "seed-0"
    result = invoke(run, "--try")
    assert result.exit_code == 0
    assert "Tried, and measured on 150 rows that none was fitted to" in " ".join(result.output.split())
    document = json.loads(invoke(run, "--try", "--json").output)
    trials = document["runs"][0]["trials"]
    assert trials
    assert {trial["remedy"] for trial in trials} <= set(kinds("remedies"))
    for trial in trials:
        assert trial["remedy"].replace("_", " ") in result.output
        for gain in (trial["score"], trial["loss"]):
            if gain is not None:
                assert f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" in result.output


@pytest.mark.thorough
def test_try_over_several_runs_is_a_table(study, short):
    result = invoke(study / "switch", "--try")
    assert "mean gain" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_baseline_trains_the_gates_own_network(study):
    run = study / "switch" / "seed-0"
    (gate,) = diagnose_run(run, baseline=True).diagnosis.examinations
    assert gate.network.scores.double().mean() > 0.7
    assert invoke(run, "--baseline").exit_code == 0
    assert diagnose_run(run).diagnosis.examinations[0].network is None


def test_test_rows_where_none_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = {**RECIPE, "data": DATA, "variants": {"soft": {}}, "training": {"epochs": 1}}
    folder = mb.lab.run(recipe, tmp_path / "small", workers=1)
    result = invoke(folder, "--rows", "100")
    assert "100 of 150 test rows" in result.output


def test_finds_the_runs_of_folders_once(study):
    runs = find_runs([study / "soft" / "seed-1", study / "soft", study])
    names = [f"{run.parent.name}/{run.name}" for run in runs]
    assert names == ["soft/seed-1", "soft/seed-0", "switch/seed-0", "switch/seed-1", "uniform/seed-0", "uniform/seed-1"]


def test_refuses_what_is_no_run(study, tmp_path):
    result = invoke(tmp_path)
    assert result.exit_code == 2
    assert "holds no finished run" in result.stderr
    assert "fix:" in result.stderr
    copied = tmp_path / "elsewhere" / "soft" / "seed-0"
    shutil.copytree(study / "soft" / "seed-0", copied)
    (copied / "job.json").unlink(missing_ok=True)
    result = invoke(copied)
    assert result.exit_code == 2
    assert "which data it was trained on" in result.stderr
    assert invoke(study, "--rows", "3").exit_code == 2
