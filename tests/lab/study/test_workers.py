import functools
import json
import multiprocessing
import os
import signal

import pytest

from moebius.kit.errors import TrainingError
from moebius.lab.study.train_run import result_path
from moebius.lab.study.workers import run_all

BITS = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet")
TWO = "variants={linear: {}, hidden: {gate: {kind: mlp, hidden: [8]}}}"
DIVERGES = "variants.conv={experts: {kind: mlp, hidden: [8]}, training: {optimizer: {kind: sgd, lr: 1e30}}}"


def ignore(*arguments):
    pass


def bits(study):
    return {(run.name, name): (study.out / run.name / name).read_bytes() for run in study.plan.runs for name in BITS}


@pytest.mark.parametrize("cohorts", ["never", "auto"])
def test_two_workers_give_the_bits_of_one(cohorts, planned, tmp_path):
    changes = (TWO,) if cohorts == "auto" else ()  # convolutions are not stacked
    alone, side_by_side = (
        planned(tmp_path / str(workers), *changes, seeds=2, workers=workers, cohorts=cohorts) for workers in (1, 2)
    )
    assert len(alone.plan.cohorts) == len(side_by_side.plan.cohorts) == 2 * (cohorts == "auto")
    events, finished = [], []
    for study in (alone, side_by_side):
        events.clear(), finished.clear()
        failures = run_all(
            study.plan,
            study.plan.runs,
            study.out,
            study.load,
            study.data,
            lambda run, event: events.append((run.name, event.kind, event.step)),
            lambda run: finished.append(run.name),
        )
        assert not failures
        assert sorted(finished) == sorted(run.name for run in study.plan.runs)
        for run in study.plan.runs:
            steps = [step for name, kind, step in events if name == run.name and kind == "step"]
            assert steps == sorted(steps)
            assert steps
            assert sum(name == run.name and kind == "epoch" for name, kind, _ in events) == 2
    assert bits(alone) == bits(side_by_side)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_diverges_does_not_stop_the_others(workers, planned, tmp_path):
    study = planned(tmp_path, DIVERGES, "training.epochs=1", workers=workers)
    reported = []
    failures = run_all(study.plan, study.plan.runs, study.out, study.load, study.data, ignore, ignore, reported.append)
    (failure,) = failures
    assert reported == failures
    assert failure.run.name == "conv/seed-0"
    assert isinstance(failure.error, TrainingError)
    assert "cross_entropy is not a finite number; not finite:" in failure.error.message
    assert "expert" in failure.error.message
    fine, broken = study.plan.runs
    assert result_path(tmp_path, fine).exists()
    assert json.loads(result_path(tmp_path, fine).read_text())["accuracy"]["test"] > 0
    assert not result_path(tmp_path, broken).exists()
    assert (tmp_path / broken.name / "state" / "checkpoint.safetensors").exists()
    assert not (tmp_path / broken.name / "model.safetensors").exists()


def test_workers_that_die_before_they_begin_are_reported(planned, tmp_path):
    study = planned(tmp_path, seeds=2, workers=2, cohorts="never")
    # Loading the data ends the process, as running out of memory would.
    failures = run_all(
        study.plan, study.plan.runs, tmp_path, functools.partial(os._exit, 3), study.data, ignore, ignore
    )
    messages = {failure.run.name: failure.error.message for failure in failures}
    assert set(messages) == {run.name for run in study.plan.runs}
    assert list(messages.values()).count("its worker process ended with code 3") == 2
    assert list(messages.values()).count("not begun: all worker processes had ended") == 2
    assert all("--workers 1" in (failure.error.fix or "") for failure in failures)


def test_a_worker_that_is_killed_costs_its_run_alone(planned, tmp_path):
    study = planned(tmp_path, "training.epochs=8", seeds=2, workers=2, cohorts="never")
    killed, finished = [], []

    def kill_once(run, event):
        if not killed and event.kind == "step":
            for process in multiprocessing.active_children():
                state = tmp_path / run.name / "state" / ".lock"
                if str(process.pid) == state.read_text():
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(run.name)

    failures = run_all(
        study.plan, study.plan.runs, tmp_path, study.load, study.data, kill_once, lambda run: finished.append(run.name)
    )
    assert [failure.run.name for failure in failures] == killed
    assert "SIGKILL; the system kills processes that use up the memory" in failures[0].error.message
    assert sorted(finished) == sorted({run.name for run in study.plan.runs} - set(killed))
    again = [failures[0].run]
    events = []
    assert not run_all(
        study.plan, again, tmp_path, study.load, study.data, lambda run, event: events.append(event), ignore
    )
    assert events[0].kind == "resumed"
    assert events[0].step > 0


@pytest.mark.parametrize("workers", [1, 2])
def test_cohorts_are_jobs_of_one_process(workers, planned, tmp_path):
    study = planned(tmp_path, TWO, "training.epochs=1", seeds=3, workers=workers)
    assert [len(cohort) for cohort in study.plan.cohorts] == [3, 3]
    events, finished = set(), []
    assert not run_all(
        study.plan,
        study.plan.runs,
        study.out,
        study.load,
        study.data,
        lambda run, event: events.add(run.name),
        lambda run: finished.append(run.name),
    )
    assert sorted(finished) == sorted(events) == sorted(run.name for run in study.plan.runs)


def test_a_worker_that_is_killed_costs_its_whole_stack(planned, tmp_path):
    study = planned(tmp_path, TWO, "training.epochs=8", seeds=2, workers=2)
    first, second = study.plan.cohorts
    killed, finished = [], []

    def kill_once(run, event):
        if not killed and run in first and event.kind == "step":
            pid = int((tmp_path / run.name / "state" / ".lock").read_text())
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    inputs = (study.plan, study.plan.runs, tmp_path, study.load, study.data)
    failures = run_all(*inputs, kill_once, lambda run: finished.append(run.name))
    assert [failure.run for failure in failures] == list(first)
    assert all("SIGKILL" in failure.error.message for failure in failures)
    assert finished == [run.name for run in second]
    resumed = []
    assert not run_all(
        study.plan,
        first,
        tmp_path,
        study.load,
        study.data,
        lambda run, event: resumed.append(run.name) if event.kind == "resumed" and event.step > 0 else None,
        ignore,
    )
    assert resumed == [run.name for run in first]
