"""A job of one run, and of a cohort: what is kept, what goes on, and how it fails."""

import random
import time
from dataclasses import replace

import pytest

from moebius.kit.errors import StudyError, TrainingError
from moebius.kit.files import read_json
from moebius.lab.study.folder_lock import folder_lock
from moebius.lab.study.job import checkpoint_path
from moebius.lab.study.run_files import collect, read_error

ONE = "variants={linear: {}}"
BITS = ("model.safetensors", "state/checkpoint.safetensors", "metrics.jsonl", "routing.parquet", "model.json")
BROKEN = "variants={linear: {}, bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}}"


def bits(job):
    paths = {(run.name, name): run.folder / name for run in job for name in BITS}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def moved(job, out):
    """The same runs, in another study's folder."""
    return tuple(replace(run, folder=out / run.name) for run in job)


@pytest.fixture(params=["run", "cohort"])
def study(request, planned, tmp_path):
    """A study of one job: a run, or one variant at three seeds, which are one cohort."""
    return planned(tmp_path / "whole", ONE, seeds=1 if request.param == "run" else 3)


@pytest.fixture
def cohort_study(planned, tmp_path):
    return planned(tmp_path / "whole", ONE, seeds=3)


def only_job(study):
    (job,) = study.plan.jobs(study.plan.runs)
    return job.runs


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_a_run_broken_off_at_any_step_leaves_the_same_files(precision, planned, record, tmp_path):
    study = planned(tmp_path / "whole", f"training.precision={precision}")
    job = study.plan.runs[precision == "bf16" :][:1]
    record().train_job(job, study.data)
    for step in random.Random(precision).sample(range(1, 7), 3):
        again = moved(job, tmp_path / f"stopped-{step}")
        with pytest.raises(KeyboardInterrupt):
            record(lambda run, event, step=step: event.step == step).train_job(again, study.data)
        assert not again[0].is_finished
        assert record().train_job(again, study.data).events[0] == (again[0].name, "resumed", step)
        assert bits(again) == bits(job)


def test_a_cohort_broken_off_at_any_event_leaves_the_same_files(cohort_study, record, tmp_path):
    job = only_job(cohort_study)
    record().train_job(job, cohort_study.data)
    draw = random.Random(0)
    for number in range(3):
        again, events = moved(job, tmp_path / str(number)), draw.randint(4, 20)
        stopped = record(lambda run, event, events=events: len(stopped.events) > events)  # noqa: B023 - it is called here
        with pytest.raises(KeyboardInterrupt):
            stopped.train_job(again, cohort_study.data)
        resumed = record().train_job(again, cohort_study.data)
        assert [name for name, kind, step in resumed.events if kind == "resumed" and step > 0] == [
            run.name for run in job
        ]
        assert bits(again) == bits(job)


def test_what_is_finished_is_not_touched(study, record):
    job = only_job(study)
    assert record().train_job(job, study.data).finished == [run.name for run in job]
    assert checkpoint_path(job).exists() == (len(job) == 1)
    before = {path: path.stat().st_mtime_ns for run in job for path in run.folder.iterdir() if path.is_file()}
    again = record().train_job(job, study.data)
    assert not again.events
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_leftovers_of_a_killed_process_are_removed(study, record):
    job = only_job(study)
    names = (".metrics.jsonl.7.tmp.jsonl", "state/.best.safetensors.7.tmp", ".tmpEc6D64", "state/.tmpEc6D64")
    for path in map(job[0].folder.joinpath, names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    record().train_job(job, study.data)
    assert not list(study.out.rglob("*.tmp*"))


def test_what_another_process_trains_is_refused_and_no_error_is_left_in_its_folder(study, record, monkeypatch):
    job = only_job(study)
    monkeypatch.setattr("moebius.lab.study.job.ORPHAN_SECONDS", 0.1)
    with folder_lock(job[-1].folder / "state"):
        failures = record().train_job(job, study.data).failures
    assert set(failures) == {run.name for run in job}
    assert all(isinstance(error, StudyError) and "another process" in error.message for error in failures.values())
    assert not any(read_error(run.folder) for run in job)


def test_a_damaged_checkpoint_is_refused_with_a_fix(study, record):
    job = only_job(study)
    path = checkpoint_path(job)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no checkpoint")
    failures = record().train_job(job, study.data).failures
    assert set(failures) == {run.name for run in job}
    for run in job:
        assert "the checkpoint cannot be read" in failures[run.name].message
        assert (failures[run.name].fix or "").startswith(f"mv {path} {path}.damaged ")
        assert read_error(run.folder) == {"message": failures[run.name].message, "fix": failures[run.name].fix}
    assert path.read_bytes() == b"no checkpoint"
    path.unlink()
    assert record().train_job(job, study.data).finished == [run.name for run in job]
    assert not any(read_error(run.folder) for run in job)


def test_every_run_of_a_cohort_has_the_files_and_figures_that_it_has_alone(cohort_study, record, tmp_path):
    job = only_job(cohort_study)
    record().train_job(job, cohort_study.data)
    for run in job:
        (alone,) = moved((run,), tmp_path / "alone")
        record().train_job((alone,), cohort_study.data)
        names, names_alone = (
            {str(path.relative_to(each.folder)) for path in each.folder.rglob("*")} for each in (run, alone)
        )
        assert names == names_alone - {"state/checkpoint.safetensors", "state/checkpoint.before.safetensors"}
        about, about_alone = (read_json(each.folder / "model.json") for each in (run, alone))
        assert about == about_alone
        entry, entry_alone = (read_json(each.result_path) for each in (run, alone))
        assert shape(entry) == shape(entry_alone)
        assert entry["accuracy"] == pytest.approx(entry_alone["accuracy"], abs=0.011)  # two of 200 rows
        assert entry["loss"] == pytest.approx(entry_alone["loss"], rel=1e-3)


def shape(value):
    """The keys of a figure, all the way down."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("ended", [1, 2])
def test_finished_runs_of_a_cohort_are_kept(ended, cohort_study, record, tmp_path, monkeypatch):
    job = only_job(cohort_study)
    record().train_job(job, cohort_study.data)
    again = moved(job, tmp_path / "stopped")
    stopped = record()

    def stop(run):
        if sum(run.is_finished for run in again) == ended:
            raise KeyboardInterrupt

    monkeypatch.setattr(stopped, "finish", stop)
    with pytest.raises(KeyboardInterrupt):
        stopped.train_job(again, cohort_study.data)
    assert checkpoint_path(again).exists()
    files = [path for run in again[:ended] for path in run.folder.iterdir() if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files}
    resumed = record().train_job(again, cohort_study.data)
    assert {path: path.stat().st_mtime_ns for path in files} == times
    assert resumed.finished == [run.name for run in again[ended:]]
    assert {name for name, _, _ in resumed.events} == set(resumed.finished)
    assert not checkpoint_path(again).exists()
    assert bits(again) == bits(job)


def test_a_run_whose_folder_was_removed_gets_the_same_bits_again(cohort_study, record):
    job = only_job(cohort_study)
    record().train_job(job, cohort_study.data)
    before = bits(job)
    for path in sorted(job[1].folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    record().train_job(job, cohort_study.data)
    assert bits(job) == before


def test_a_run_of_a_cohort_that_diverges_leaves_the_others(planned, record, tmp_path):
    study = planned(tmp_path, BROKEN, seeds=2)
    job = only_job(study)
    first = record().train_job(job, study.data)
    assert [run.name for run in job] == ["linear/seed-0", "bad/seed-0", "linear/seed-1", "bad/seed-1"]
    assert first.finished == ["linear/seed-0", "linear/seed-1"]
    assert list(first.failures) == ["bad/seed-0", "bad/seed-1"]
    for run in job[1::2]:
        error = first.failures[run.name]
        assert isinstance(error, TrainingError)
        assert "is not a finite number" in error.message
        assert read_error(run.folder) == {"message": error.message, "fix": error.fix, "diverged": True}
    assert [entry["variant"] for entry in collect(study.plan.runs)] == ["linear", "linear"]
    again = record().train_job(job, study.data)
    assert {name: error.message for name, error in again.failures.items()} == {
        name: error.message for name, error in first.failures.items()
    }


def test_a_process_killed_at_a_random_moment_ends_in_the_same_bits(planned, record, started, tmp_path):
    slow = ("training.epochs=12", "training.batch_size=20", "training.checkpoint_seconds=0.1", "data.train_rows=1500")
    whole, pieces = (planned(tmp_path / name, *slow) for name in ("whole", "pieces"))
    uninterrupted, job = (study.plan.jobs(study.plan.runs[:1])[0] for study in (whole, pieces))
    uninterrupted.prepare_process()
    record().train_job(uninterrupted.runs, whole.data)
    job.write()
    process = started("job", job.folder)
    while process.poll() is None and not checkpoint_path(job.runs).exists():
        time.sleep(0.005)
    time.sleep(0.2 * random.Random().random())
    assert process.poll() is None
    process.kill()
    process.wait()
    again = started("job", job.folder)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert output.startswith("resumed linear/seed-0 at epoch ")
    assert "\nfinished linear/seed-0, 1 of 1 runs\n" in output
    assert bits(job.runs) == bits(uninterrupted.runs)
    assert not list(pieces.out.rglob("*.tmp*"))
