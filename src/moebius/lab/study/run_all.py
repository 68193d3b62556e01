"""All jobs of a plan: in this process, or in worker processes."""

from collections.abc import Sequence

from moebius.lab.data.split import Dataset
from moebius.lab.study.job import run_job
from moebius.lab.study.listener import Listener
from moebius.lab.study.plan import Plan
from moebius.lab.study.pool import run_in_pool
from moebius.lab.study.run_spec import RunSpec


def run_all(
    plan: Plan,
    runs: Sequence[RunSpec],
    data: Dataset,
    listener: Listener,
) -> None:
    """Train `runs`, `plan.workers` jobs at a time; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads, cohorts.
        runs: those that are not finished yet, stages before the runs that use them.
        data: of the study.
        listener: called in this thread.
    """
    jobs = plan.jobs(runs)
    for job in jobs:
        job.write()
    workers = min(plan.workers, len(jobs))
    if workers > 1:
        run_in_pool([job.runs for job in jobs], workers, listener)
    for job in jobs if workers == 1 else ():
        job.prepare_process()
        run_job(job.runs, lambda: data, plan.device, listener)
