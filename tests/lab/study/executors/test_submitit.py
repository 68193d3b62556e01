"""submitit, by the processes of its local executor, which write and read the same files as its jobs of SLURM."""

import json
import os
import signal
import time

import pytest

pytest.importorskip("submitit", reason="submitit is not installed (pip install 'moebius[submitit]')")

from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.study.executors import Submitit
from moebius.lab.study.run_files import read_error

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def pid_of(run):
    path = run.folder / "state" / ".pid"
    return int(path.read_text()) if path.exists() and path.read_text() else 0


def test_gives_the_bits_of_this_machine_and_the_error_of_a_run_that_fails(planned, record, train, bits, tmp_path):
    changes = ("variants={linear: {}, bad: {training: {losses: [{kind: z_loss, weight: 1e39}]}}}", "training.epochs=1")
    options = {"workers": 2, "cohorts": "never"}
    here, there = (planned(tmp_path / name, *changes, **options) for name in ("here", "there"))
    local, remote = record(), record()
    train(here, local)
    train(there, remote, Submitit("local", cpus=1))
    assert bits(there.plan) == bits(here.plan)
    assert sorted(remote.finished) == sorted(local.finished)
    assert {name: error.message for name, error in remote.failures.items()} == {
        name: error.message for name, error in local.failures.items()
    }
    assert "epoch 1, step 1" in remote.failures["bad/seed-0"].message
    # The logs of jobs that did what they should are not kept.
    assert [path.parents[1].parent.name for path in (tmp_path / "there").rglob("submitit")] == ["bad"]


@pytest.mark.slow
def test_a_job_that_is_preempted_goes_on_from_its_checkpoint(planned, record, train, bits, tmp_path):
    options, epochs = {"cohorts": "never"}, ("training.epochs=30", "variants={linear: {}}")
    here, there = (planned(tmp_path / name, *epochs, **options) for name in ("here", "there"))
    train(here, record())
    preempted = []

    def preempt_once(run, event):
        if event.kind == "epoch" and not preempted:
            preempted.append(pid_of(run))
            os.kill(preempted[0], signal.SIGUSR2)  # what SLURM sends before it takes a node away
        return False

    heard = record(preempt_once)
    train(there, heard, Submitit("local"))
    assert [(name, step > 0) for name, kind, step in heard.events if kind == "resumed"] == [("linear/seed-0", True)]
    assert pid_of(there.plan.runs[0]) != preempted[0]
    assert not heard.failures
    assert bits(there.plan) == bits(here.plan)


@pytest.mark.slow
def test_a_job_that_is_killed_says_where_its_log_is_and_goes_on_with_any_executor(
    planned, record, train, bits, tmp_path
):
    changes = ("training.epochs=30", "variants={linear: {}}")
    here, study = planned(tmp_path / "here", *changes), planned(tmp_path / "out", *changes)
    run, killed = study.plan.runs[0], []

    def kill_once(run, event):
        if event.kind == "epoch" and not killed:
            killed.append(pid_of(run))
            os.kill(killed[0], signal.SIGKILL)
        return False

    first = record(kill_once)
    train(study, first, Submitit("local"))
    error = first.failures[run.name]
    assert "ended without a result" in error.message
    assert str(run.folder / "state" / "submitit") in (error.fix or "")
    assert read_error(run.folder) == {"message": error.message, "fix": error.fix}
    assert not list(study.out.rglob(".*.tmp*"))
    again = record()
    train(study, again)
    train(here, record())
    assert again.finished == [run.name]
    assert any(kind == "resumed" and step > 0 for _, kind, step in again.events)
    assert bits(study.plan) == bits(here.plan)


@pytest.mark.slow
def test_an_interrupt_ends_the_processes(planned, record, train, tmp_path):
    study = planned(tmp_path, "training.epochs=5000", "variants={linear: {}}")
    with pytest.raises(KeyboardInterrupt):
        train(study, record(lambda run, event: event.kind == "epoch"), Submitit("local"))
    pid, deadline = pid_of(study.plan.runs[0]), time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not os.path.exists(f"/proc/{pid}")
    assert not study.plan.runs[0].is_finished
    lines = (study.plan.runs[0].folder / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)


def test_the_script_has_the_users_options(planned, tmp_path, monkeypatch):
    """Without SLURM: what would be given to sbatch."""
    from submitit.slurm.slurm import SlurmExecutor

    from moebius.lab.study.executors import submitit as module
    from moebius.lab.study.submission import Submission

    study = planned(tmp_path)
    job = study.plan.jobs(study.plan.runs)[0]
    job.write()
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    scripts = []

    def keep(executor, command):
        scripts.append(executor._make_submission_file_text(command, "id"))
        raise RuntimeError("no sbatch here")

    monkeypatch.setattr(SlurmExecutor, "_submit_command", keep)
    executor = Submitit(cpus=4, gpus=2, time=90, partition="long", slurm={"account": "lab"})
    with pytest.raises(RuntimeError, match="no sbatch here"):
        executor.submit(Submission.of(job, executor.cpus, executor.gpus))
    lines = {line.removeprefix("#SBATCH ") for line in scripts[0].splitlines()}
    assert {"--time=90", "--partition=long", "--account=lab", "--cpus-per-task=4", "--gpus-per-node=2"} <= lines
    assert executor.place.has_nodes
    assert executor.place.text == "SLURM"


def test_options_that_do_not_fit_are_refused(monkeypatch):
    from moebius.lab.study.executors import submitit as module

    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.raises(StudyError, match="this machine has no sbatch and srun"):
        Submitit("slurm")
    with pytest.raises(ArgumentError, match=r"SLURM has whole GPUs, got 0\.5"):
        Submitit(gpus=0.5)
    with pytest.raises(ArgumentError, match="needs auto, slurm or local, got 'k8s'"):
        Submitit("k8s")
    assert Submitit().place.text == "submitit on this machine"
