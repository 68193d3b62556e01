import json
import random

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from moebius.kit.errors import StudyError, TrainingError
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.train_cohort import checkpoint_path, train_cohort
from moebius.lab.study.train_run import collect, result_path, train_run
from moebius.storage.header import read_header

ONE = "variants={linear: {}}"
BITS = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet", "model.json")
BROKEN = "variants={linear: {}, bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}}"


def ignore(*arguments):
    pass


def bits(out, run, names=BITS):
    return {name: (out / run.name / name).read_bytes() for name in names}


def train(study, out, listen=ignore, finished=ignore, failed=ignore):
    (cohort,) = study.plan.cohorts
    train_cohort(cohort, study.data, out, "cpu", listen, finished, failed)
    return cohort


@pytest.fixture
def study(planned, tmp_path):
    """One variant at three seeds, which are one cohort."""
    return planned(tmp_path / "whole", ONE, seeds=3)


def test_every_run_has_the_files_and_figures_that_it_has_alone(study, tmp_path):
    finished = []
    cohort = train(study, study.out, finished=lambda run: finished.append(run.name))
    assert finished == [run.name for run in cohort] == ["linear/seed-0", "linear/seed-1", "linear/seed-2"]
    assert not checkpoint_path(study.out, cohort).exists()
    for run in cohort:
        train_run(run, study.data, tmp_path / "alone", "cpu", ignore)
        ours, alone = (out / run.name for out in (study.out, tmp_path / "alone"))
        assert {str(path.relative_to(ours)) for path in ours.rglob("*")} == {
            str(path.relative_to(alone)) for path in alone.rglob("*")
        }
        headers = [{**read_header(folder), "sha256": None} for folder in (ours, alone)]
        assert headers[0] == headers[1]
        ours, alone = (json.loads((folder / "result.json").read_text()) for folder in (ours, alone))
        assert shape(ours) == shape(alone)
        assert ours["accuracy"] == pytest.approx(alone["accuracy"], abs=0.011)  # two of 200 rows
        assert ours["loss"] == pytest.approx(alone["loss"], rel=1e-3)


def shape(value):
    """The keys of a figure, all the way down."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


def test_a_cohort_broken_off_at_any_event_leaves_the_same_files(study, tmp_path):
    cohort = train(study, study.out)
    draw = random.Random(0)
    for number in range(3):
        out, left = tmp_path / str(number), draw.randint(4, 20)

        def listen(run, event):
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(study, out, listen)
        events = []
        train(
            study,
            out,
            lambda run, event, events=events: events.append((run.name, event.kind, event.step)),
        )
        assert [name for name, kind, step in events if kind == "resumed" and step > 0] == [run.name for run in cohort]
        for run in cohort:
            assert bits(out, run) == bits(study.out, run)


@pytest.mark.parametrize("ended", [1, 2])
def test_finished_runs_of_a_cohort_are_kept(ended, study, tmp_path):
    cohort = train(study, study.out)
    out = tmp_path / "stopped"

    def stop(run):
        if sum(result_path(out, run).exists() for run in cohort) == ended:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(study, out, finished=stop)
    assert checkpoint_path(out, cohort).exists()
    times = {path: path.stat().st_mtime_ns for run in cohort[:ended] for path in (out / run.name).iterdir()}
    events, finished = set(), []
    train(study, out, lambda run, event: events.add(run.name), lambda run: finished.append(run.name))
    assert {path: path.stat().st_mtime_ns for path in times if path.is_file()} == {
        path: time for path, time in times.items() if path.is_file()
    }
    assert finished == [run.name for run in cohort[ended:]]
    assert events == set(finished)
    assert not checkpoint_path(out, cohort).exists()
    for run in cohort:
        assert bits(out, run) == bits(study.out, run)
    finished.clear()
    train(study, out, finished=finished.append)
    assert not finished


def test_a_run_whose_folder_was_removed_gets_the_same_bits_again(study, tmp_path):
    cohort = train(study, study.out)
    gone = cohort[1]
    before = bits(study.out, gone)
    for path in sorted((study.out / gone.name).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    train(study, study.out)
    assert bits(study.out, gone) == before


def test_a_run_that_diverges_leaves_the_others(planned, tmp_path):
    study = planned(tmp_path, BROKEN, seeds=2)
    failed, finished = [], []
    cohort = train(study, tmp_path, ignore, lambda run: finished.append(run.name), lambda *one: failed.append(one))
    assert [run.name for run in cohort] == ["linear/seed-0", "bad/seed-0", "linear/seed-1", "bad/seed-1"]
    assert finished == ["linear/seed-0", "linear/seed-1"]
    assert [run.name for run, _ in failed] == ["bad/seed-0", "bad/seed-1"]
    assert all(isinstance(error, TrainingError) and "is not a finite number" in error.message for _, error in failed)
    assert [entry["variant"] for entry in collect(tmp_path, study.plan.runs)] == ["linear", "linear"]
    again = []
    train(study, tmp_path, ignore, finished.append, lambda *one: again.append(one))
    assert [(run.name, error.message) for run, error in again] == [(run.name, error.message) for run, error in failed]


def test_a_cohort_that_another_process_trains_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr("moebius.lab.study.train_cohort.ORPHAN_SECONDS", 0.1)
    with folder_lock(tmp_path / "linear/seed-1/state"), pytest.raises(StudyError, match="another process"):
        train(study, tmp_path)


def test_a_damaged_checkpoint_is_refused_with_a_fix(study, tmp_path):
    (cohort,) = study.plan.cohorts
    path = checkpoint_path(tmp_path, cohort)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(StudyError, match="the checkpoint cannot be read") as raised:
        train(study, tmp_path)
    assert (raised.value.fix or "").startswith(f"mv {tmp_path / 'linear/seed-0/state'} ")
    path.unlink()
    train(study, tmp_path)


def test_a_study_that_was_interrupted_when_cohorts_were_called_stacks_goes_on(study, tmp_path):
    cohort = train(study, study.out)
    out, left = tmp_path / "old", 9

    def listen(run, event):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(study, out, listen)
    path = checkpoint_path(out, cohort)
    with safe_open(path, "pt") as file:
        tensors, state = load_file(path), file.metadata()["cohort"]
    path.unlink()
    save_file(tensors, path.with_name("stack.safetensors"), {"stack": state})
    events = []
    train(study, out, lambda run, event: events.append((run.name, event.kind, event.step)))
    assert [name for name, kind, step in events if kind == "resumed" and step > 0] == [run.name for run in cohort]
    for run in cohort:
        assert bits(out, run) == bits(study.out, run)
    assert not list(out.rglob("stack.safetensors"))
