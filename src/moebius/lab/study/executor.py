"""The contract of an executor, which does the jobs of a study."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from moebius.lab.data.split import Dataset
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.listener import Listener
from moebius.lab.study.plan import HERE, Place, Plan


class Executor(ABC):
    """Does jobs. A subclass of `Scheduler` has to say only how a job is submitted, polled and cancelled.

    Arguments:
        cpus: cores of each job, which are the threads of a study that begins; None for what the plan has.
        gpus: GPUs of each job; None for one where the study computes on a GPU.
    """

    def __init__(self, cpus: int | None = None, gpus: float | int | None = None):
        self.cpus, self.gpus = cpus, gpus

    @property
    def place(self) -> Place:
        """What a plan has to know of the machines that do the jobs."""
        return HERE

    @abstractmethod
    def do_jobs(self, plan: Plan, jobs: Sequence[JobSpec], data: Dataset, listener: Listener, most: int | None) -> None:
        """Do the jobs, whose folders hold their `job.json`; one that fails does not stop the others.

        Arguments:
            plan: of the study.
            jobs: in the order in which they begin; one begins when the stages that it needs have ended.
            data: of the study, as this process has loaded them.
            listener: called in this thread.
            most: jobs at a time; None for as many as the executor and the plan allow.
        """

    def close(self) -> None:  # noqa: B027
        """Let go of what the executor holds; called once, when the study ends, however it ends."""
