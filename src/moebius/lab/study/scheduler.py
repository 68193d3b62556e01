"""Executors that hand jobs to a scheduler, and hear of them through the study's folder."""

import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from moebius.kit.errors import TrainingError
from moebius.lab.data.split import Dataset
from moebius.lab.study.executor import Executor
from moebius.lab.study.job_files import job_root
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.listener import Listener
from moebius.lab.study.plan import Place, Plan
from moebius.lab.study.run_files import write_error
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.submission import Outcome, Submission
from moebius.lab.training.outcome import Event

# Seconds between two looks at the jobs, and until a file that another node has written is given up: an NFS client may
# hold that a file is missing for 60 s.
POLL_SECONDS, VISIBLE_SECONDS = 0.2, 70.0
FIX = "run the same command again; it goes on from the last checkpoint"


@runtime_checkable
class Handle(Protocol):
    """A job that has been submitted."""

    def poll(self) -> Outcome | None:
        """How the job has ended; None while it has not.

        Raises:
            StudyError: the scheduler itself is lost.
        """

    def cancel(self) -> None:
        """End the job, wherever it is."""


class Scheduler(Executor):
    """Submits jobs, each when its stages have ended, and waits for them; the queue is the scheduler's.

    Another scheduler needs one subclass with `submit`.

    Arguments:
        cpus, gpus: as for `Executor`.
        shared: whether nodes see the study's folder. Where not, a job's files travel to the node, and those of its runs
            come back when it ends: until then nothing is heard of it, and a node that dies has kept nothing.
    """

    def __init__(self, cpus: int | None = None, gpus: float | int | None = None, shared: bool = True):
        super().__init__(cpus, gpus)
        self.shared = shared

    @property
    @abstractmethod
    def text(self) -> str:
        """Names the place where the jobs are done, for the line that a study begins with, and for its report."""

    @property
    def has_nodes(self) -> bool:
        """Whether other machines do jobs, which wait for them; else `plan.workers` are submitted at a time."""
        return True

    @property
    def place(self) -> Place:
        """Nodes, which may differ from this machine."""
        return Place(self.cpus, self.has_nodes, self.text)

    @abstractmethod
    def submit(self, submission: Submission) -> Handle:
        """Submit one job: the scheduler has to call the submission once, on a node with its cores and GPUs.

        A call that dies with its node may be repeated elsewhere: it goes on from the checkpoint.

        Raises:
            StudyError: the scheduler is lost, or will never find a place for the job.
        """

    def do_jobs(self, plan: Plan, jobs: Sequence[JobSpec], data: Dataset, listener: Listener, most: int | None) -> None:
        """Submit all jobs; cancel those that have not ended when this function ends, however it ends."""
        most = most or (len(jobs) if self.has_nodes else plan.workers)
        waiting = list(jobs)
        unended = {run.folder for job in jobs for run in job.runs if not run.is_finished}
        submitted: list[_Submitted] = []
        try:
            while waiting or submitted:
                ready = [job for job in waiting if not any(unended & {*run.folders.values()} for run in job.runs)]
                for job in ready[: max(0, most - len(submitted))]:
                    waiting.remove(job)
                    submission = Submission.of(job, self.cpus, self.gpus, self.shared)
                    submitted.append(_Submitted(job, submission, listener))
                    submitted[-1].handle = self.submit(submission)
                for each in list(submitted):
                    if each.follow():
                        submitted.remove(each)
                    unended -= each.ended
                if submitted:
                    time.sleep(POLL_SECONDS)
        finally:
            for each in submitted:
                if each.handle is not None:
                    with suppress(Exception):  # the scheduler may be what was lost
                        each.handle.cancel()


class _Submitted:
    """A job that a node does, as its files show it here."""

    def __init__(self, job: JobSpec, submission: Submission, listener: Listener):
        self.job, self.listener = job, listener
        self.handle: Handle | None = None
        self.open_runs = {number: run for number, run in enumerate(job.runs) if not run.is_finished}
        self.reported: set[int] = set()
        self.ended: set[Path] = set()
        self.path, self.position = submission.messages_path, 0
        self.path.unlink(missing_ok=True)

    def follow(self) -> bool:
        """Tell the listener what is new; returns whether the job has ended."""
        assert self.handle is not None
        outcome = self.handle.poll()
        self._read_messages()
        self._finish_visible()
        if outcome is None:
            return False
        if outcome.files is not None and self.open_runs:
            runs = {f"{run.folder.parent.name}/{run.folder.name}/" for run in self.open_runs.values()}
            files = {name: text for name, text in outcome.files.files.items() if name.startswith(tuple(runs))}
            replace(outcome.files, files=files).unpack(job_root(self.job.folder))
        for number, error in outcome.errors.items():
            self._fail(number, *error)
        if outcome.reason is None:
            self._await_results()
        for number, run in list(self.open_runs.items()):
            reason, fix = outcome.reason, outcome.fix or FIX
            if reason is None:
                reason = f"node {outcome.node} has finished it, and {run.result_path} is not here"
                fix = "--out, and --stages if given, in a folder that all nodes share under one path"
            write_error(run, TrainingError(reason, fix))
            self._fail(number, reason, fix)
        self.path.unlink(missing_ok=True)
        return True

    def _read_messages(self) -> None:
        """Read the whole lines that the node has added."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            text = file.read()
        end = text.rfind(b"\n") + 1
        self.position += end
        for line in text[:end].splitlines():
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        run = self.open_runs.get(message["run"])
        if run is None:
            return
        if "event" in message:
            self.listener.show(run, Event(**message["event"]))
        elif "error" in message:
            self._fail(message["run"], *message["error"])
        else:
            self.reported.add(message["run"])

    def _finish_visible(self) -> None:
        """A run is finished here when its files are seen here, which may be later than on the node."""
        for number in sorted(self.reported & self.open_runs.keys()):
            if self.open_runs[number].is_finished:
                self._end(number, lambda run: self.listener.finish(run))

    def _await_results(self) -> None:
        self.reported |= self.open_runs.keys()
        deadline = time.monotonic() + VISIBLE_SECONDS
        while True:
            self._finish_visible()
            if not self.open_runs or time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)

    def _fail(self, number: int, message: str, fix: str | None) -> None:
        if number in self.open_runs:
            self._end(number, lambda run: self.listener.fail(run, TrainingError(message, fix)))

    def _end(self, number: int, tell: Any) -> None:
        run: RunSpec = self.open_runs.pop(number)
        self.ended.add(run.folder)
        tell(run)
