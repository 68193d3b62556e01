"""All jobs of a plan: in this process, or in worker processes."""

from collections.abc import Callable, Sequence

from moebius.kit.errors import MoebiusError
from moebius.lab.data.split import Dataset
from moebius.lab.study.job import run_job
from moebius.lab.study.plan import Plan
from moebius.lab.study.pool import run_in_pool
from moebius.lab.study.run_spec import RunSpec
from moebius.lab.training.outcome import Event


def run_all(
    plan: Plan,
    runs: Sequence[RunSpec],
    data: Dataset,
    listen: Callable[[RunSpec, Event], None],
    on_finish: Callable[[RunSpec], None],
    on_failure: Callable[[RunSpec, MoebiusError], None] = lambda run, error: None,
) -> list[tuple[RunSpec, MoebiusError]]:
    """Train `runs`, `plan.workers` jobs at a time; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads, cohorts.
        runs: those that are not finished yet, stages before the runs that use them.
        data: of the study.
        listen, on_finish, on_failure: called in this thread for each run's events and end.

    Returns:
        The runs that failed.
    """
    jobs = plan.jobs(runs)
    failures: list[tuple[RunSpec, MoebiusError]] = []

    def fail(run: RunSpec, error: MoebiusError) -> None:
        failures.append((run, error))
        on_failure(run, error)

    for job in jobs:
        job.write()
    workers = min(plan.workers, len(jobs))
    if workers > 1:
        run_in_pool([job.runs for job in jobs], workers, listen, on_finish, fail)
    for job in jobs if workers == 1 else ():
        job.prepare_process()
        run_job(job.runs, lambda: data, plan.device, listen, on_finish, fail)
    return failures
