"""What a process does at one go."""

from collections.abc import Callable
from pathlib import Path

from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Dataset
from moebius.lab.study.cohorts import Job
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.study.train_cohort import train_cohort
from moebius.lab.study.train_run import result_path, train_run
from moebius.lab.training.outcome import Event


def run_job(
    job: Job,
    data: Dataset,
    out: Path,
    device: str,
    listen: Callable[[RunSpec, Event], None],
    finished: Callable[[RunSpec], None],
    failed: Callable[[RunSpec, MoebiusError], None],
) -> None:
    """Train one run, or a stack; of each run that was not finished before, `finished` or `failed` hears.

    Arguments:
        job: the runs.
        data: of the study.
        out: its folder.
        device: "cpu" or "cuda".
        listen, finished, failed: hear of progress and end.
    """
    left = {run.name: run for run in job if not result_path(out, run).exists()}

    def end(run: RunSpec) -> None:
        left.pop(run.name, None)
        finished(run)

    def fail(run: RunSpec, error: MoebiusError) -> None:
        left.pop(run.name, None)
        failed(run, error)

    try:
        only, *others = job
        if others:
            train_cohort(job, data, out, device, listen, end, fail)
        else:
            train_run(only, data, out, device, lambda event: listen(only, event))
    except MoebiusError as error:
        for run in list(left.values()):
            fail(run, error)
    for run in list(left.values()):
        end(run)
