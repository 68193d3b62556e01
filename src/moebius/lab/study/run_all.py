"""All jobs of a plan: their files, and the executor that does them."""

from collections.abc import Sequence

from moebius.lab.data.split import Dataset
from moebius.lab.study.executor import Executor
from moebius.lab.study.executors.local import Local
from moebius.lab.study.listener import Listener
from moebius.lab.study.plan import Plan
from moebius.lab.study.run_spec import RunSpec


def run_all(
    plan: Plan,
    runs: Sequence[RunSpec],
    data: Dataset,
    listener: Listener,
    executor: Executor | None = None,
    most: int | None = None,
) -> None:
    """Train `runs`; a run that fails does not stop the others.

    Arguments:
        plan: device, workers, threads, cohorts.
        runs: those that are not finished yet, stages before the runs that use them.
        data: of the study.
        listener: called in this thread.
        executor: does the jobs; None for this machine, `plan.workers` jobs at a time.
        most: jobs at a time; None for as many as the executor and the plan allow.
    """
    jobs = plan.jobs(runs)
    for job in jobs:
        job.write()
    (executor or Local()).do_jobs(plan, jobs, data, listener, most)
