"""What a process that does a job tells the process that waits for it: one JSON object a line."""

import json
from collections.abc import MutableMapping
from dataclasses import asdict
from typing import IO, Any

from moebius.kit.errors import MoebiusError
from moebius.lab.study.cohorts import Job
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event


class JobMessages:
    """A listener that writes a line for each event and each end of a run; `run` is the run's number in the job.

    Arguments:
        lines: the open text file, or the pipe, that the lines go to.
        job: the runs.
    """

    def __init__(self, lines: IO[str], job: Job):
        self.lines = lines
        self.numbers = {run.name: number for number, run in enumerate(job)}
        self.errors: MutableMapping[int, tuple[str, str | None]] = {}

    def show(self, run: RunSpec, event: Event) -> None:
        """Tell of an event."""
        self.send(run=self.numbers[run.name], event=asdict(event))

    def finish(self, run: RunSpec) -> None:
        """Tell that a run has left all its files."""
        self.send(run=self.numbers[run.name], finished=True)

    def fail(self, run: RunSpec, error: MoebiusError) -> None:
        """Tell that a run cannot be finished."""
        number = self.numbers[run.name]
        self.errors[number] = (error.message, error.fix)
        self.send(run=number, error=[error.message, error.fix])

    def send(self, **message: Any) -> None:
        """Write one line."""
        print(json.dumps(message), file=self.lines, flush=True)
