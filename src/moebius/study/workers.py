"""Runs side by side: each worker process trains one run at a time and tells the parent how it goes."""

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from moebius.allocator import tune_allocator
from moebius.data.split import Dataset
from moebius.errors import MoebiusError, TrainingError
from moebius.study.one_run import run_one
from moebius.study.plan import Plan, RunPlan
from moebius.training.loop import Event

Listener = Callable[[RunPlan, Event], None]


@dataclass(frozen=True)
class Failure:
    """A run that could not be finished."""

    run: RunPlan
    error: MoebiusError


def run_all(
    plan: Plan,
    runs: Sequence[RunPlan],
    out: Path,
    load: Callable[[], Dataset],
    data: Dataset,
    listen: Listener,
    finished: Callable[[RunPlan], None],
) -> list[Failure]:
    """Train `runs`, `plan.workers` at a time; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads.
        runs: those that are not finished yet.
        out: the study's folder.
        load: gives the data in a worker process (a picklable function).
        data: the same data, already in this process.
        listen, finished: hear of each run's progress and end, in this process.

    Returns:
        The runs that failed.
    """
    workers = min(plan.workers, len(runs))
    if workers <= 1:
        return _here(plan, runs, out, data, listen, finished)
    return _Pool(plan, runs, out, load, listen, finished).work(workers)


def prepare_process(threads: int) -> None:
    """What every process that trains does first."""
    torch.set_num_threads(threads)
    tune_allocator()


def _here(
    plan: Plan, runs: Sequence[RunPlan], out: Path, data: Dataset, listen: Listener, finished: Callable[[RunPlan], None]
) -> list[Failure]:
    prepare_process(plan.threads)
    failures = []
    for run in runs:
        try:
            run_one(run, data, out, plan.device, lambda event, run=run: listen(run, event))
        except MoebiusError as error:
            failures.append(Failure(run, error))
        else:
            finished(run)
    return failures


class _Pool:
    """Persistent worker processes that take runs from one queue and put what happens into another."""

    def __init__(
        self,
        plan: Plan,
        runs: Sequence[RunPlan],
        out: Path,
        load: Callable[[], Dataset],
        listen: Listener,
        finished: Callable[[RunPlan], None],
    ):
        self.plan, self.runs, self.out, self.load = plan, runs, out, load
        self.listen, self.finished = listen, finished
        # A fresh interpreter for each: forking a process in which torch has threads can hang.
        self.processes = multiprocessing.get_context("spawn")

    def work(self, workers: int) -> list[Failure]:
        tasks, news = self.processes.SimpleQueue(), self.processes.Queue()
        life, parent_end = self.processes.Pipe(duplex=False)
        for number in range(len(self.runs)):
            tasks.put(number)
        for _ in range(workers):
            tasks.put(None)
        arguments = (life, tasks, news, self.plan, tuple(self.runs), self.out, self.load)
        alive = [self.processes.Process(target=_work, args=arguments) for _ in range(workers)]
        for process in alive:
            process.start()
        failures: list[Failure] = []
        done = 0
        try:
            while done < len(self.runs):
                try:
                    number, message = news.get(timeout=1.0)
                except queue.Empty:
                    if any(process.exitcode not in (None, 0) for process in alive):
                        code = next(process.exitcode for process in alive if process.exitcode)
                        raise TrainingError(
                            f"a worker process ended with code {code}; the system kills those that use up the memory",
                            "run the same command again with --workers 1",
                        ) from None
                    continue
                run = self.runs[number]
                if isinstance(message, Event):
                    self.listen(run, message)
                    continue
                done += 1
                if message is None:
                    self.finished(run)
                else:
                    failures.append(Failure(run, message))
            for process in alive:
                process.join()
        finally:
            parent_end.close()
            for process in alive:
                process.kill()
                process.join()
        return failures


def _work(
    life: Connection, tasks: Any, news: Any, plan: Plan, runs: Sequence[RunPlan], out: Path, load: Callable[[], Dataset]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    threading.Thread(target=_end_with_parent, args=(life,), daemon=True).start()
    prepare_process(plan.threads)
    data = load()
    while (number := tasks.get()) is not None:
        try:
            run_one(runs[number], data, out, plan.device, lambda event, number=number: news.put((number, event)))
        except MoebiusError as error:
            news.put((number, _picklable(error)))
        else:
            news.put((number, None))


def _end_with_parent(life: Connection) -> None:
    """End this process at once when the parent is gone: the other end of the pipe is open in the parent alone."""
    try:
        life.recv_bytes()
    except EOFError:
        os._exit(1)


def _picklable(error: MoebiusError) -> MoebiusError:
    return TrainingError(error.message, error.fix)
