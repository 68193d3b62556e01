"""Jobs as tasks of a Ray cluster."""

import logging
import os
import warnings
from typing import Any

from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.study.executors._choice import import_extra
from moebius.lab.study.scheduler import Scheduler
from moebius.lab.study.submission import Outcome, Submission, plain_python_path


class Ray(Scheduler):
    """Tasks of a Ray cluster, of which each is a job; a task whose node or worker dies begins again on another.

    Without an address: the cluster of `RAY_ADDRESS`, or one that runs on this machine, or one that is started on this
    machine for the study. A process that has called `ray.init` before uses that cluster.

    Arguments:
        address: HOST:PORT of the cluster's head.
        cpus: cores of each job; None for the threads of the study.
        gpus: GPUs of each job, also parts of one, as 0.5; None for one where the study computes on a GPU.
        retries: how often a job whose node or worker dies begins again, from its checkpoint.
        shared: as for `Scheduler`; a job without a shared folder begins again from the start.

    Example:
        >>> Ray("head:6379", cpus=2).text
        'Ray at head:6379'

    Reference: Moritz et al. 2018, Ray: A Distributed Framework for Emerging AI Applications, OSDI; docs.ray.io.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int | None = None,
        gpus: float | int | None = None,
        retries: int = 3,
        shared: bool = True,
    ):
        super().__init__(cpus, gpus, shared)
        if retries < 0:
            raise ArgumentError("retries", "needs 0 or more", retries, "--retries 3")
        self.address, self.retries = address, retries
        self.ray: Any = import_extra("ray")
        self.is_ours = False

    @property
    def text(self) -> str:
        """Ray and its address."""
        return f"Ray at {self.address}" if self.address else "Ray"

    def submit(self, submission: Submission) -> "_Task":
        """Submit a task."""
        self._connect()
        self._check_place(submission)
        task = self.ray.remote(_do).options(
            num_cpus=submission.cpus,
            num_gpus=submission.gpus,
            max_retries=self.retries,
            scheduling_strategy="SPREAD",
            name=command("moebius", "job", submission.folder),
        )
        return _Task(self.ray, task.remote(submission))

    def close(self) -> None:
        """Leave the cluster; one that was started for the study ends."""
        if self.is_ours:
            self.is_ours = False
            self.ray.shutdown()

    def _connect(self) -> None:
        if self.ray.is_initialized():
            return
        # Nothing is sent to Ray's makers by a cluster that is started here, unless the user has chosen so.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        path = plain_python_path()
        environment = {"env_vars": {"PYTHONPATH": path}} if path else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
        except (ConnectionError, ValueError, RuntimeError) as error:
            place = self.address or os.environ.get("RAY_ADDRESS") or "this machine"
            reason = str(error).strip().splitlines()[0]
            fix = "ray start --head    # there; `ray status` shows its address"
            raise StudyError(f"no Ray cluster answers at {place} ({reason})", fix) from None
        self.is_ours = True

    def _check_place(self, submission: Submission) -> None:
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        demands = {"CPU": submission.cpus, "GPU": submission.gpus}
        if not any(all(node.get(name, 0) >= count for name, count in demands.items()) for node in nodes):
            offers = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes)
            rule = f"no node of the Ray cluster has {submission.cpus} CPU and {submission.gpus:g} GPU for a job"
            raise StudyError(f"{rule} (nodes: {offers})", "--cpus 1")


def _do(submission: Submission) -> Outcome:
    return submission()


class _Task:
    """A task of Ray."""

    def __init__(self, ray: Any, reference: Any):
        self.ray, self.reference = ray, reference

    def poll(self) -> Outcome | None:
        """The task's result, or what Ray says of its end."""
        try:
            done, _ = self.ray.wait([self.reference], timeout=0)
            return self.ray.get(self.reference) if done else None
        except self.ray.exceptions.RayTaskError as error:
            return Outcome(reason=f"its task failed ({type(error.cause).__name__}: {error.cause})")
        except self.ray.exceptions.RayError as error:
            return Outcome(reason=f"Ray has given it up ({type(error).__name__}: {str(error).splitlines()[0]})")

    def cancel(self) -> None:
        """End the task and its worker."""
        self.ray.cancel(self.reference, force=True)
