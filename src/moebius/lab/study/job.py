"""One job of a process: a run, or a cohort."""

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
    on_finish: Callable[[RunSpec], None],
    on_failure: Callable[[RunSpec, MoebiusError], None],
) -> None:
    """Train one run, or a cohort.

    Arguments:
        job: the runs.
        data: of the study.
        out: its folder.
        device: "cpu" or "cuda".
        listen: receives a run and its event.
        on_finish, on_failure: one of them is called for each run that was not finished before.
    """
    unfinished = {run.name: run for run in job if not result_path(out, run).exists()}

    def finish(run: RunSpec) -> None:
        unfinished.pop(run.name, None)
        on_finish(run)

    def fail(run: RunSpec, error: MoebiusError) -> None:
        unfinished.pop(run.name, None)
        on_failure(run, error)

    try:
        first, *others = job
        if others:
            train_cohort(job, data, out, device, listen, finish, fail)
        else:
            train_run(first, data, out, device, lambda event: listen(first, event))
    except MoebiusError as error:
        for run in list(unfinished.values()):
            fail(run, error)
    for run in list(unfinished.values()):
        finish(run)
