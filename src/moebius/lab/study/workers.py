"""Jobs side by side: each worker process trains one run or one cohort at a time and sends events to the parent."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from moebius.kit.allocator import tune_allocator
from moebius.kit.errors import MoebiusError, TrainingError
from moebius.lab.data.split import Dataset
from moebius.lab.study.cohorts import Job
from moebius.lab.study.job import run_job
from moebius.lab.study.plan import Plan
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.train_run import result_path
from moebius.lab.training.outcome import Event

Listener = Callable[[RunSpec, Event], None]


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished."""

    run: RunSpec
    error: MoebiusError


def run_all(
    plan: Plan,
    runs: Sequence[RunSpec],
    out: Path,
    load: Callable[[], Dataset],
    data: Dataset,
    listen: Listener,
    on_finish: Callable[[RunSpec], None],
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> list[Failure]:
    """Train `runs`, `plan.workers` jobs at a time; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads, cohorts.
        runs: those that are not finished yet, stages before the runs that use them.
        out: the study's folder.
        load: returns the data in a worker process (a picklable function).
        data: the same data, already in this process.
        listen, on_finish, on_failure: called in this process for each run's events and end.

    Returns:
        The runs that failed.
    """
    jobs = plan.jobs(runs)
    workers = min(plan.workers, len(jobs))
    if workers <= 1:
        return _run_in_this_process(plan, jobs, out, data, listen, on_finish, on_failure)
    return _WorkerPool(plan, jobs, out, load, listen, on_finish, on_failure).run(workers)


def prepare_process(threads: int) -> None:
    """Set the number of threads and the allocator, as every process that trains does first."""
    torch.set_num_threads(threads)
    tune_allocator()


def _run_in_this_process(
    plan: Plan,
    jobs: Sequence[Job],
    out: Path,
    data: Dataset,
    listen: Listener,
    on_finish: Callable[[RunSpec], None],
    on_failure: Callable[[Failure], None],
) -> list[Failure]:
    prepare_process(plan.threads)
    failures: list[Failure] = []

    def fail(run: RunSpec, error: MoebiusError) -> None:
        failures.append(Failure(run, error))
        on_failure(failures[-1])

    for job in jobs:
        error = _stage_error(job, failures)
        if error is not None:
            fail(job[0], error)
        else:
            run_job(job, data, out, plan.device, listen, on_finish, fail)
    return failures


def _stage_error(job: Job, failures: Sequence[Failure]) -> TrainingError | None:
    """The error of a job that cannot begin because a stage that it uses has failed; None where it can."""
    folders = [folder for run in job for folder in run.folders.values()]
    for failure in failures:
        if failure.run.rows is not None and failure.run.folder in folders:
            return TrainingError(f"not begun: {failure.run.name} failed", failure.error.fix)
    return None


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    # Its job, and the runs of the job that have not ended.
    job: Job | None = None
    open_runs: dict[str, RunSpec] = field(default_factory=dict)


class _WorkerPool:
    """Persistent worker processes, each with its own connection: a process that dies blocks no other."""

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[Job],
        out: Path,
        load: Callable[[], Dataset],
        listen: Listener,
        on_finish: Callable[[RunSpec], None],
        on_failure: Callable[[Failure], None],
    ):
        self.plan, self.out, self.load = plan, out, load
        self.listen, self.on_finish, self.on_failure = listen, on_finish, on_failure
        self.waiting_jobs = deque(jobs)
        self.unfinished_stages = {run.folder for job in jobs for run in job if run.rows is not None}
        self.workers: dict[Connection, _Worker] = {}
        self.failures: list[Failure] = []
        # A fresh interpreter for each: forking a process in which torch has threads can hang.
        self.context = multiprocessing.get_context("spawn")

    def run(self, workers: int) -> list[Failure]:
        lifeline, parent_end = self.context.Pipe(duplex=False)
        processes: list[BaseProcess] = []
        try:
            for _ in range(workers):
                processes.append(self._start_worker(lifeline))
            while any(worker.job is not None for worker in self.workers.values()):
                busy = [connection for connection, worker in self.workers.items() if worker.job is not None]
                for connection in wait(busy):
                    self._receive(self.workers[connection])  # pyright: ignore[reportArgumentType]
                self._assign_jobs()
            for worker in self.workers.values():
                self._send(worker, None)
            for process in processes:
                process.join()
        finally:
            parent_end.close()
            for process in processes:
                process.kill()
                process.join()
        fix = "run the same command again with --workers 1"
        error = TrainingError("not begun: all worker processes had ended", fix)
        return self.failures + [Failure(run, error) for job in self.waiting_jobs for run in self._unfinished_runs(job)]

    def _start_worker(self, lifeline: Connection) -> BaseProcess:
        connection, worker_end = self.context.Pipe()
        arguments = (lifeline, worker_end, self.plan, self.out, self.load)
        process = self.context.Process(target=_run_worker, args=arguments)
        with _blocked_interrupts():
            process.start()
        worker_end.close()
        self.workers[connection] = _Worker(process, connection)
        self._assign_jobs()
        return process

    def _assign_jobs(self) -> None:
        """Send jobs that can begin to workers that have none."""
        for job in list(self.waiting_jobs):
            error = _stage_error(job, self.failures)
            if error is not None:
                self.waiting_jobs.remove(job)
                for run in job:
                    self._fail(run, error)
        for worker in self.workers.values():
            job = next((job for job in self.waiting_jobs if self._can_begin(job)), None)
            if worker.job is None and job is not None:
                self.waiting_jobs.remove(job)
                worker.job, worker.open_runs = job, {run.name: run for run in self._unfinished_runs(job)}
                self._send(worker, job)

    def _can_begin(self, job: Job) -> bool:
        return not any(self.unfinished_stages & set(run.folders.values()) for run in job)

    def _unfinished_runs(self, job: Job) -> list[RunSpec]:
        return [run for run in job if not result_path(self.out, run).exists()]

    def _receive(self, worker: _Worker) -> None:
        """Handle one message of a worker: (run, event, error or None for a finished run), or None after a job."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            del self.workers[worker.connection]
            for run in worker.open_runs.values():
                self._fail(run, _exit_error(worker.process.exitcode))
            return
        if message is None:
            worker.job = None
            return
        run, content = message
        if isinstance(content, Event):
            self.listen(run, content)
            return
        worker.open_runs.pop(run.name, None)
        if content is None:
            self.unfinished_stages.discard(run.folder)
            self.on_finish(run)
        else:
            self._fail(run, content)

    def _fail(self, run: RunSpec, error: MoebiusError) -> None:
        self.failures.append(Failure(run, error))
        self.on_failure(self.failures[-1])

    def _send(self, worker: _Worker, job: Job | None) -> None:
        with contextlib.suppress(OSError):  # the process has died, and its connection is about to close
            worker.connection.send(job)


def _run_worker(
    lifeline: Connection, connection: Connection, plan: Plan, out: Path, load: Callable[[], Dataset]
) -> None:
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    prepare_process(plan.threads)
    data = None

    def send(run: RunSpec, content: Event | MoebiusError | None = None) -> None:
        connection.send((run, content))

    for job in _receive_jobs(connection):
        try:
            if data is None:
                # Also a recipe's sources may be a plugin's.
                for plugin in plan.plugins:
                    plugin.load()
                data = load()
        except MoebiusError as error:
            for run in job:
                send(run, error)
        else:
            run_job(job, data, out, plan.device, send, send, send)
        connection.send(None)


def _receive_jobs(connection: Connection) -> Iterator[Job]:
    with contextlib.suppress(EOFError):  # the parent is gone
        while (job := connection.recv()) is not None:
            yield job


def _end_with_parent(lifeline: Connection) -> None:
    """End this process at once when the parent is gone: the other end of the pipe is open in the parent alone."""
    try:
        lifeline.recv_bytes()
    except EOFError:
        os._exit(1)


def _exit_error(code: int | None) -> TrainingError:
    fix = "run the same command again with --workers 1; it goes on from the last checkpoint"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; the system kills processes that use up the memory" if name == "SIGKILL" else ""
        return TrainingError(f"its worker process was ended by {name}{hint}", fix)
    return TrainingError(f"its worker process ended with code {code}", fix)


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
