"""The process that a pool starts, by its standard streams alone."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from moebius.lab.recipe.plugins import Plugin
from moebius.lab.training.outcome import Event


@pytest.fixture
def worker():
    """`moebius job -`."""
    command = [sys.executable, "-m", "moebius", "job", "-"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **streams) as process:
        yield process
        process.kill()


def messages_of(worker, folder):
    """The messages of a job, to its end."""
    print(folder, file=worker.stdin, flush=True)
    messages = [json.loads(worker.stdout.readline())]
    while "done" not in messages[-1]:
        messages.append(json.loads(worker.stdout.readline()))
    return messages


def test_a_worker_sends_events_and_ends_with_its_input(planned, worker, tmp_path):
    study = planned(tmp_path / "study", "training.epochs=1")
    path = tmp_path / "prints.py"
    path.write_text("print('on the screen')")
    plugin = Plugin("prints.py", path, hashlib.sha256(path.read_bytes()).hexdigest())
    long, short = replace(study.plan, plugins=(plugin,)).jobs(study.plan.runs)
    (run,) = long.runs
    long = replace(long, runs=(replace(run, training={**run.training, "epochs": 10_000}),))
    for job in (long, short):
        job.write()
    *events, last, done = messages_of(worker, short.folder)
    assert (last, done) == ({"run": 0, "finished": True}, {"done": True})
    received = [Event(**message["event"]) for message in events]
    assert [event.kind for event in received if event.kind != "step"] == ["epoch"]
    first = received[0]
    assert (first.step, first.test_score) == (1, None)
    # In the middle of a job.
    print(long.folder, file=worker.stdin, flush=True)
    assert "event" in json.loads(worker.stdout.readline())
    worker.stdin.close()
    assert worker.wait(timeout=20) == 1
    assert "on the screen" in worker.stderr.read()


def test_a_worker_without_a_job_ends_well_and_says_what_is_no_job(worker, tmp_path):
    _, errors = worker.communicate()
    assert (worker.returncode, errors) == (0, "")
