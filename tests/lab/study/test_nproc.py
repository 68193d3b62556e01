"""Studies whose runs are trained by several processes each."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import moebius as mb
from moebius.kit.errors import ArgumentError, StudyError, TrainingError
from moebius.lab.study.display import Display
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.run import plan

SMALL = {
    "name": "small",
    "data": {"sets": [{"kind": "digits"}], "size": 8, "train_rows": 120, "test_rows": 200},
    "training": {"epochs": 2, "batch_size": 40, "optimizer": {"kind": "adam", "lr": 1e-2}},
    "model": {"gate": {"kind": "linear"}, "experts": {"kind": "linear", "count": 2}},
    "variants": {"linear": {"training": {"losses": [{"kind": "switch_balance", "weight": 0.1}]}}},
    "seeds": 1,
}
STAGE = {"kind": "stage", "stage": "base"}
# A cohort of two, a stage, and a variant that uses it.
MANY = {
    **SMALL,
    "pretraining": {"network": {"kind": "linear"}},
    "stages": {"base": {}},
    "variants": {"plain": {}, **SMALL["variants"], "staged": {"experts": [STAGE, {"kind": "linear"}]}},
}
QUIET = {"console": Console(quiet=True), "workers": 1, "cohorts": "always"}


def outcomes(folder: Path) -> dict[str, tuple]:
    """Weights of all runs and stages, and their metrics."""
    runs = sorted(path.parent for path in folder.rglob("model.safetensors"))
    return {
        # The name of a stage's folder ends in a hash.
        f"{run.parent.name.split('-')[0]}/{run.name}": (
            load_file(run / "model.safetensors"),
            [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()],
        )
        for run in runs
    }


def compare(actual: Path, expected: Path) -> None:
    several, one = outcomes(actual), outcomes(expected)
    for of_run in (*several.values(), *one.values()):
        for entry in of_run[1]:
            entry.pop("findings", None)  # texts
    torch.testing.assert_close(several, one, rtol=2e-5, atol=2e-5)
    counts = [len(json.loads((folder / "results.json").read_text())["runs"]) for folder in (actual, expected)]
    assert counts[0] == counts[1] > 0
    assert (actual / "report.html").exists()


def children() -> list[int]:
    """The processes that this one has started and that have not ended."""
    tasks = Path("/proc/self/task").iterdir()
    return [int(number) for task in tasks for number in (task / "children").read_text().split()]


def test_a_study_goes_on_after_one_of_two_processes_was_killed(tmp_path, monkeypatch):
    """The run fails with one error, and the same call ends it with the result of one process."""
    before, show = set(children()), Display.show

    def kill(display, run, event):
        show(display, run, event)
        for child in set(children()) - before:
            os.kill(child, signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "show", kill)
        with pytest.raises(TrainingError, match="linear/seed-0"):
            mb.lab.run(SMALL, tmp_path / "two", nproc=2, **QUIET)
    error = json.loads((tmp_path / "two/linear/seed-0/error.json").read_text())
    assert "a process that trains the same model has ended" in error["message"]
    assert not torch.distributed.is_initialized()
    mb.lab.run(SMALL, tmp_path / "two", nproc=2, **QUIET)
    mb.lab.run(SMALL, tmp_path / "one", **QUIET)
    compare(tmp_path / "two", tmp_path / "one")
    assert set(children()) <= before
    assert not [path for path in (tmp_path / "two").rglob("*") if "tmp" in path.name]


def launch(folder: Path, *words: str) -> subprocess.CompletedProcess:
    (folder / "many.yaml").write_text(json.dumps(MANY))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "moebius"]
    return subprocess.run(
        [sys.executable, *launcher, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


@pytest.mark.thorough
def test_processes_of_torchrun_do_one_study(tmp_path):
    """Stages, cohorts and runs alone; the first process writes, once."""
    done = launch(tmp_path, "run", "many.yaml", "--out", "two", "--cohorts", "always")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("finished linear/seed-0") == 1
    # A command that fails ends all processes, with the one error.
    failed = launch(tmp_path, "run", "many.yaml", "--out", "two", "--workers", "3")
    assert "workers: does not fit the 2 processes" in failed.stdout
    assert "process 0 has not finished the study" in failed.stdout
    assert failed.returncode
    mb.lab.run(MANY, tmp_path / "one", **QUIET)
    assert len(outcomes(tmp_path / "one")) == 4
    compare(tmp_path / "two", tmp_path / "one")


def test_a_job_under_torchrun_is_refused_with_what_to_type(tmp_path, monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StudyError, match=r"2 processes, which would all do the same.*\n.*--nproc"):
        plan(SMALL, tmp_path / "study", **QUIET)
    assert not (tmp_path / "study").exists()


def test_more_processes_than_rows_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ArgumentError, match=r"linear/seed-0: training\.batch_size: has too few rows for 41 processes"):
        plan(SMALL, tmp_path / "study", nproc=41, **QUIET)
    with pytest.raises(ArgumentError, match="nproc: needs a number of processes"):
        plan(SMALL, tmp_path / "study", nproc=0, **QUIET)


def test_jobs_keep_how_many_processes_train_them(tmp_path):
    """So that `moebius job` on any machine starts as many; cores are shared among them."""
    (folder,) = plan(SMALL, tmp_path / "study", nproc=2, console=QUIET["console"])
    job = JobSpec.read(folder)
    assert job.processes == 2
    machine = json.loads((tmp_path / "study/study.json").read_text())["machine"]
    assert machine["nproc"] == 2
    cores = len(os.sched_getaffinity(0))
    assert machine["workers"] * machine["threads"] * 2 <= max(cores, 2)


@pytest.mark.thorough
def test_workers_have_processes_of_their_own(tmp_path):
    two = {**SMALL, "seeds": 2}
    mb.lab.run(two, tmp_path / "two", **{**QUIET, "workers": 2, "cohorts": "never", "nproc": 2})
    mb.lab.run(two, tmp_path / "one", **{**QUIET, "cohorts": "never"})
    compare(tmp_path / "two", tmp_path / "one")
