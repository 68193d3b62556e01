"""Jobs side by side: each worker process trains one run, or one stack, at a time and tells the parent how it goes."""

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
    finished: Callable[[RunSpec], None],
    failed: Callable[[Failure], None] = lambda failure: None,
) -> list[Failure]:
    """Train `runs`, `plan.workers` jobs at a time; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads, stacks.
        runs: those that are not finished yet, stages before what uses them.
        out: the study's folder.
        load: gives the data in a worker process (a picklable function).
        data: the same data, already in this process.
        listen, finished, failed: hear of each run's progress and end, in this process.

    Returns:
        The runs that failed.
    """
    jobs = plan.jobs(runs)
    workers = min(plan.workers, len(jobs))
    if workers <= 1:
        return _here(plan, jobs, out, data, listen, finished, failed)
    return _Pool(plan, jobs, out, load, listen, finished, failed).work(workers)


def prepare_process(threads: int) -> None:
    """What every process that trains does first."""
    torch.set_num_threads(threads)
    tune_allocator()


def _here(
    plan: Plan,
    jobs: Sequence[Job],
    out: Path,
    data: Dataset,
    listen: Listener,
    finished: Callable[[RunSpec], None],
    failed: Callable[[Failure], None],
) -> list[Failure]:
    prepare_process(plan.threads)
    failures: list[Failure] = []

    def fail(run: RunSpec, error: MoebiusError) -> None:
        failures.append(Failure(run, error))
        failed(failures[-1])

    for job in jobs:
        missing = _missing(job, failures)
        if missing is not None:
            fail(job[0], missing)
        else:
            run_job(job, data, out, plan.device, listen, finished, fail)
    return failures


def _missing(job: Job, failures: Sequence[Failure]) -> TrainingError | None:
    """Why a job cannot be begun: a stage that it uses has failed."""
    folders = [folder for run in job for folder in run.folders.values()]
    for failure in failures:
        if failure.run.rows is not None and failure.run.folder in folders:
            return TrainingError(f"not begun: {failure.run.name} failed", failure.error.fix)
    return None


@dataclass
class _Worker:
    process: BaseProcess
    link: Connection
    # Its job, and those of its runs that have not ended.
    job: Job | None = None
    left: dict[str, RunSpec] = field(default_factory=dict)


class _Pool:
    """Persistent worker processes, each with a link of its own: one that dies holds nothing that others wait for."""

    def __init__(
        self,
        plan: Plan,
        jobs: Sequence[Job],
        out: Path,
        load: Callable[[], Dataset],
        listen: Listener,
        finished: Callable[[RunSpec], None],
        failed: Callable[[Failure], None],
    ):
        self.plan, self.out, self.load = plan, out, load
        self.listen, self.finished, self.failed = listen, finished, failed
        self.waiting = deque(jobs)
        self.unfinished = {run.folder for job in jobs for run in job if run.rows is not None}
        self.at_work: dict[Connection, _Worker] = {}
        self.failures: list[Failure] = []
        # A fresh interpreter for each: forking a process in which torch has threads can hang.
        self.processes = multiprocessing.get_context("spawn")

    def work(self, workers: int) -> list[Failure]:
        life, parent_end = self.processes.Pipe(duplex=False)
        started: list[BaseProcess] = []
        try:
            for _ in range(workers):
                started.append(self._start(life))
            while any(worker.job is not None for worker in self.at_work.values()):
                busy = [link for link, worker in self.at_work.items() if worker.job is not None]
                for link in wait(busy):
                    self._hear(self.at_work[link])  # pyright: ignore[reportArgumentType]
                self._hand_out()
            for worker in self.at_work.values():
                self._send(worker, None)
            for process in started:
                process.join()
        finally:
            parent_end.close()
            for process in started:
                process.kill()
                process.join()
        left = TrainingError("not begun: all worker processes had ended", "run the same command again with --workers 1")
        return self.failures + [Failure(run, left) for job in self.waiting for run in self._open(job)]

    def _start(self, life: Connection) -> BaseProcess:
        link, theirs = self.processes.Pipe()
        process = self.processes.Process(target=_work, args=(life, theirs, self.plan, self.out, self.load))
        with _holding_back_interrupts():
            process.start()
        theirs.close()
        self.at_work[link] = _Worker(process, link)
        self._hand_out()
        return process

    def _hand_out(self) -> None:
        """Give jobs that can begin to workers that have none."""
        for job in list(self.waiting):
            missing = _missing(job, self.failures)
            if missing is not None:
                self.waiting.remove(job)
                for run in job:
                    self._fail(run, missing)
        for worker in self.at_work.values():
            ready = next((job for job in self.waiting if self._can_begin(job)), None)
            if worker.job is None and ready is not None:
                self.waiting.remove(ready)
                worker.job, worker.left = ready, {run.name: run for run in self._open(ready)}
                self._send(worker, ready)

    def _can_begin(self, job: Job) -> bool:
        return not any(self.unfinished & set(run.folders.values()) for run in job)

    def _open(self, job: Job) -> list[RunSpec]:
        return [run for run in job if not result_path(self.out, run).exists()]

    def _hear(self, worker: _Worker) -> None:
        """Take up one message of a worker: (run, event, error or None where it is finished), or None after a job."""
        try:
            message = worker.link.recv()
        except (EOFError, OSError):
            worker.process.join()
            del self.at_work[worker.link]
            for run in worker.left.values():
                self._fail(run, _death(worker.process.exitcode))
            return
        if message is None:
            worker.job = None
            return
        run, what = message
        if isinstance(what, Event):
            self.listen(run, what)
            return
        worker.left.pop(run.name, None)
        if what is None:
            self.unfinished.discard(run.folder)
            self.finished(run)
        else:
            self._fail(run, what)

    def _fail(self, run: RunSpec, error: MoebiusError) -> None:
        self.failures.append(Failure(run, error))
        self.failed(self.failures[-1])

    def _send(self, worker: _Worker, job: Job | None) -> None:
        with contextlib.suppress(OSError):  # it has died: its link says so next
            worker.link.send(job)


def _work(life: Connection, link: Connection, plan: Plan, out: Path, load: Callable[[], Dataset]) -> None:
    # Ctrl-C reaches the whole group; the parent ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    prepare_process(plan.threads)
    data = None

    def tell(run: RunSpec, what: Event | MoebiusError | None = None) -> None:
        link.send((run, what))

    for job in _given(link):
        try:
            if data is None:
                # Also a recipe's sources may be a plugin's.
                for plugin in plan.plugins:
                    plugin.load()
                data = load()
        except MoebiusError as error:
            for run in job:
                tell(run, error)
        else:
            run_job(job, data, out, plan.device, tell, tell, tell)
        link.send(None)


def _given(link: Connection) -> Iterator[Job]:
    with contextlib.suppress(EOFError):  # the parent is gone
        while (job := link.recv()) is not None:
            yield job


def _end_with_parent(life: Connection) -> None:
    """End this process at once when the parent is gone: the other end of the pipe is open in the parent alone."""
    try:
        life.recv_bytes()
    except EOFError:
        os._exit(1)


def _death(code: int | None) -> TrainingError:
    fix = "run the same command again with --workers 1; it goes on from the last checkpoint"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; the system does so to those that use up the memory" if name == "SIGKILL" else ""
        return TrainingError(f"its worker process was ended by {name}{hint}", fix)
    return TrainingError(f"its worker process ended with code {code}", fix)


@contextlib.contextmanager
def _holding_back_interrupts() -> Iterator[None]:
    """Processes started inside begin with Ctrl-C blocked, before they can ignore it; here it comes after the block."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
