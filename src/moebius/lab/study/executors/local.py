"""Jobs on this machine."""

from collections.abc import Sequence

from moebius.lab.data.split import Dataset
from moebius.lab.study.executor import Executor
from moebius.lab.study.job import run_job
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.listener import Listener
from moebius.lab.study.plan import Plan
from moebius.lab.study.pool import run_in_pool


class Local(Executor):
    """Worker processes on this machine, one per core or GPU; this process alone where one job runs at a time.

    Example:
        >>> Local().place.has_nodes
        False

    Reference: ours.
    """

    def __init__(self):
        super().__init__()

    def do_jobs(self, plan: Plan, jobs: Sequence[JobSpec], data: Dataset, listener: Listener, most: int | None) -> None:
        """Do `plan.workers` jobs at a time."""
        workers = min(plan.workers, len(jobs))
        if workers > 1:
            run_in_pool([job.runs for job in jobs], workers, listener)
        for job in jobs if workers == 1 else ():
            job.prepare_process()
            run_job(job.runs, lambda: data, plan.device, listener, processes=job.processes, mixed=job.mixed)
