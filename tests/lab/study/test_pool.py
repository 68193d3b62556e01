import hashlib
import os
import signal
from dataclasses import replace

import pytest

from moebius.kit.errors import TrainingError
from moebius.lab.recipe.plugins import Plugin
from moebius.lab.study.run_files import read_error

BITS = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet")
TWO = "variants={linear: {}, hidden: {gate: {kind: mlp, hidden: [8]}}}"
DIVERGES = "variants.conv={experts: {kind: mlp, hidden: [8]}, training: {optimizer: {kind: sgd, lr: 1e30}}}"


def bits(study):
    paths = {(run.name, name): run.folder / name for run in study.plan.runs for name in BITS}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


@pytest.mark.parametrize("cohorts", ["never", pytest.param("auto", marks=pytest.mark.thorough)])
def test_two_workers_give_the_bits_of_one(cohorts, planned, record, tmp_path):
    changes = (TWO,) if cohorts == "auto" else ()  # convolutions are not stacked
    alone, side_by_side = (
        planned(tmp_path / str(workers), *changes, seeds=2, workers=workers, cohorts=cohorts) for workers in (1, 2)
    )
    assert len(alone.plan.cohorts) == len(side_by_side.plan.cohorts) == 2 * (cohorts == "auto")
    for study in (alone, side_by_side):
        trained = record().train_plan(study.plan, study.data)
        assert not trained.failures
        assert sorted(trained.finished) == sorted(run.name for run in study.plan.runs)
        for run in study.plan.runs:
            steps = [step for name, kind, step in trained.events if name == run.name and kind == "step"]
            assert steps == sorted(steps)
            assert steps
            assert sum(name == run.name and kind == "epoch" for name, kind, _ in trained.events) == 2
    assert bits(alone) == bits(side_by_side)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_diverges_does_not_stop_the_others(workers, planned, record, tmp_path):
    study = planned(tmp_path, DIVERGES, "training.epochs=1", workers=workers)
    failures = record().train_plan(study.plan, study.data).failures
    assert list(failures) == ["conv/seed-0"]
    error = failures["conv/seed-0"]
    assert isinstance(error, TrainingError)
    assert "cross_entropy is not a finite number; not finite:" in error.message
    assert "expert" in error.message
    fine, broken = study.plan.runs
    assert fine.is_finished
    assert not broken.is_finished
    assert (broken.folder / "state" / "checkpoint.safetensors").exists()
    assert not (broken.folder / "model.safetensors").exists()
    assert read_error(broken.folder) == {"message": error.message, "fix": error.fix, "diverged": True}


def test_workers_that_die_before_they_begin_are_reported(planned, record, tmp_path):
    study = planned(tmp_path / "study", seeds=2, workers=2, cohorts="never")
    # This plugin ends the process, as running out of memory would.
    path = tmp_path / "ends.py"
    path.write_text("import os; os._exit(3)")
    plugin = Plugin("ends.py", path, hashlib.sha256(path.read_bytes()).hexdigest())
    failures = record().train_plan(replace(study.plan, plugins=(plugin,)), study.data).failures
    messages = [failures[run.name].message for run in study.plan.runs]
    assert messages.count("its worker process ended with code 3") == 2
    assert messages.count("not begun: all worker processes had ended") == 2
    assert all("--workers 1" in (error.fix or "") for error in failures.values())


@pytest.mark.parametrize("cohorts", [pytest.param("never", marks=pytest.mark.thorough), "auto"])
def test_a_worker_that_is_killed_costs_its_job_alone(cohorts, planned, record, tmp_path):
    study = planned(tmp_path, TWO, "training.epochs=8", seeds=2, workers=2, cohorts=cohorts)
    job = study.plan.jobs(study.plan.runs)[0].runs
    assert len(job) == (1 if cohorts == "never" else 2)
    killed = []

    def kill_once(run, event):
        if not killed and run in job and event.kind == "step":
            killed.append(int((run.folder / "state" / ".pid").read_text()))
            os.kill(killed[0], signal.SIGKILL)
        return False

    first = record(kill_once).train_plan(study.plan, study.data)
    assert list(first.failures) == [run.name for run in job]
    for run in job:
        assert "SIGKILL; the system kills processes that use up the memory" in first.failures[run.name].message
        assert read_error(run.folder) is not None
    assert sorted(first.finished) == sorted({run.name for run in study.plan.runs} - set(first.failures))
    again = record().train_plan(study.plan, study.data)
    assert sorted(again.finished) == sorted(first.failures)
    assert [name for name, kind, step in again.events if kind == "resumed" and step > 0] == [run.name for run in job]
