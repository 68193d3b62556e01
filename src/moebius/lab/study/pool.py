"""Jobs side by side: worker processes, started as `moebius job -`, that do one job at a time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from moebius.kit.errors import TrainingError
from moebius.lab.study.cohorts import Job
from moebius.lab.study.listener import Listener
from moebius.lab.study.run_files import write_error
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event

# -P: a file in the working directory does not stand in for a module.
COMMAND = (sys.executable, "-P", "-m", "moebius", "job", "-")


def run_in_pool(jobs: Sequence[Job], workers: int, listener: Listener) -> None:
    """Do the jobs in worker processes, which end when this function ends, however it ends.

    A job begins when the stages that it needs have ended. A worker that dies costs the runs of its job alone.

    Arguments:
        jobs: in the order in which they begin; each folder holds its `job.json`.
        workers: how many jobs run at a time.
        listener: called in this thread.
    """
    waiting = list(jobs)
    unended = {run.folder for job in jobs for run in job}
    messages: SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = SimpleQueue()
    pool: list[_Worker] = []

    def fail(run: RunSpec, message: str, fix: str | None) -> None:
        unended.discard(run.folder)
        listener.fail(run, TrainingError(message, fix))

    def begin_jobs() -> None:
        for worker in pool:
            job = next((job for job in waiting if not any(unended & {*run.folders.values()} for run in job)), None)
            if worker.job is None and job is not None:
                waiting.remove(job)
                worker.begin(job)

    try:
        for _ in range(workers):
            pool.append(_Worker(messages))
            begin_jobs()
        while any(worker.job for worker in pool):
            worker, message = messages.get()
            if message is None:
                pool.remove(worker)
                reason, fix = _describe_exit(worker.end())
                for run in worker.open_runs.values():
                    write_error(run, TrainingError(reason, fix))
                    fail(run, reason, fix)
            elif "done" in message:
                worker.job = None
            elif "event" in message:
                listener.show(worker.open_runs[message["run"]], Event(**message["event"]))
            else:
                run = worker.open_runs.pop(message["run"])
                if "error" in message:
                    fail(run, *message["error"])
                else:
                    unended.discard(run.folder)
                    listener.finish(run)
            begin_jobs()
    finally:
        for worker in pool:
            worker.end()
    for run in (run for job in waiting for run in job if not run.is_finished):
        fail(run, "not begun: all worker processes had ended", "run the same command again with --workers 1")


class _Worker:
    """A worker process, and the thread that receives its messages; None after the last one."""

    def __init__(self, messages: SimpleQueue):
        self.job: Job | None = None
        self.open_runs: dict[int, RunSpec] = {}
        # Modules come from where they come from here.
        path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
        with _blocked_interrupts():
            self.process = subprocess.Popen(
                COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
            )
        threading.Thread(target=self._receive, args=(messages,), daemon=True).start()

    def begin(self, job: Job) -> None:
        """Send a job to the process."""
        self.job = job
        self.open_runs = {number: run for number, run in enumerate(job) if not run.is_finished}
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # the process has died, which its last message will say
            os.write(self.process.stdin.fileno(), os.fsencode(job[0].folder) + b"\n")

    def end(self) -> int:
        """End the process, if it has not ended; returns its exit code."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.stdin.close()
        return self.process.wait()

    def _receive(self, messages: SimpleQueue) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                messages.put((self, json.loads(line)))
        messages.put((self, None))


def _describe_exit(code: int) -> tuple[str, str]:
    fix = "run the same command again with --workers 1; it goes on from the last checkpoint"
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; the system kills processes that use up the memory" if name == "SIGKILL" else ""
        return f"its worker process was ended by {name}{hint}", fix
    return f"its worker process ended with code {code}", fix


@contextlib.contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Processes that start inside begin with Ctrl-C blocked; this process receives it after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
