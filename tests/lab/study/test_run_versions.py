"""Each run keeps the versions that it was trained with; other ones are refused in the middle of its training."""

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from moebius import __version__
from moebius.kit.files import write_json
from moebius.lab.cli import app
from moebius.lab.report.mixed_versions import describe_mixing
from moebius.lab.study.job import run_job
from moebius.lab.study.run_files import collect
from moebius.lab.study.run_versions import current_versions, read_versions
from moebius.lab.study.study_file import read_study

ONE = "variants={linear: {}}"
OLD = {"torch": "1.0.0"}


@pytest.fixture
def broken_off(planned, record, tmp_path):
    """A run in the middle of its training, which another torch has begun."""
    study = planned(tmp_path / "study", ONE, seeds=1)
    (run,) = study.plan.runs
    with pytest.raises(KeyboardInterrupt):
        record(lambda run, event: event.step == 2).train_job((run,), study.data)
    assert read_versions(run.folder) == [current_versions()]
    write_json(run.folder / "state" / "versions.json", {"trained": [{**current_versions(), **OLD}]})
    return study, run


def test_a_run_goes_on_with_its_own_versions_only(broken_off, record):
    study, run = broken_off
    checkpoint = (run.folder / "state" / "checkpoint.safetensors").read_bytes()
    error = record().train_job((run,), study.data).failures[run.name]
    assert f"torch 1.0.0 then, {torch.__version__} now" in error.message
    assert (error.fix or "").startswith("pip install torch==1.0.0    #")
    assert "--allow-mixed" in (error.fix or "")
    assert not run.is_finished
    assert (run.folder / "state" / "checkpoint.safetensors").read_bytes() == checkpoint


def test_mixed_versions_are_allowed_and_told(broken_off, record):
    study, run = broken_off
    (job,) = replace(study.plan, mixed=True).jobs([run])
    listener = record()
    run_job(job.runs, lambda: study.data, "cpu", listener, mixed=job.mixed)
    assert listener.failures == {}
    (entry,) = collect([run])
    assert [versions["torch"] for versions in entry["versions"]] == ["1.0.0", torch.__version__]
    text = f"Mixed versions: torch 1.0.0 then {torch.__version__} (1 run). Their bits need not agree."
    assert describe_mixing([entry]) == text


def test_the_command_refuses_allows_and_tells(broken_off, small_recipe):
    study, run = broken_off
    words = [
        "run",
        small_recipe().reference,
        ONE,
        "--seeds",
        "1",
        "--device",
        "cpu",
        "--workers",
        "1",
        "--out",
        str(study.out),
    ]
    refused = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
    assert refused.exit_code == 2
    assert "torch 1.0.0 then" in refused.output
    assert not run.is_finished
    allowed = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, "--allow-mixed"])
    assert allowed.exit_code == 0, allowed.output
    text = f"Mixed versions: torch 1.0.0 then {torch.__version__} (1 run). Their bits need not agree."
    assert text in " ".join(allowed.output.split())
    assert f"torch 1.0.0 then {torch.__version__} (1 run)" in (study.out / "report.html").read_text(encoding="utf-8")


def test_a_run_without_checkpoint_begins_with_the_versions_that_are_here(broken_off, record):
    study, run = broken_off
    for path in (run.folder / "state").glob("checkpoint*"):
        path.unlink()
    assert record().train_job((run,), study.data).failures == {}
    assert collect([run])[0]["versions"] == [current_versions()]
    assert describe_mixing(collect([run])) is None


def test_a_study_keeps_the_versions_that_it_was_begun_with(planned, tmp_path):
    out = tmp_path / "study"
    planned(out, ONE, seeds=1)
    about = read_study(out / "study.json") or {}
    assert about["versions"]["moebius"] == __version__
    write_json(out / "study.json", {**about, "versions": {**about["versions"], **OLD}})
    planned(out, ONE, seeds=2)
    assert (read_study(out / "study.json") or {})["versions"]["torch"] == "1.0.0"


@pytest.mark.parametrize("name", ["model.safetensors", "routing.parquet"])
def test_a_finished_run_that_lacks_a_file_is_finished_again(name, planned, record, tmp_path):
    study = planned(tmp_path / "study", ONE, seeds=1)
    (run,) = study.plan.runs
    record().train_plan(study.plan, study.data)
    path = run.folder / name
    content = path.read_bytes()
    path.unlink()
    assert not run.is_finished
    assert record().train_plan(study.plan, study.data).finished == [run.name]
    assert path.read_bytes() == content
