"""Jobs of SLURM, through submitit."""

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.study.executors._choice import import_extra
from moebius.lab.study.scheduler import Scheduler
from moebius.lab.study.submission import Outcome, Submission, plain_python_path


class Submitit(Scheduler):
    """Jobs of SLURM, or processes of this machine with the same files; a job that SLURM preempts is queued again.

    Arguments:
        cluster: "slurm"; "local", processes on this machine; "auto", SLURM where its commands are.
        cpus: cores of each job; None for the threads of the study.
        gpus: GPUs of each job; None for one where the study computes on a GPU.
        time: minutes after which SLURM ends a job, which then goes on in a new one.
        partition: of SLURM; None for its default.
        slurm: further options of `sbatch`, name → value, as {"account": "lab"}.
        retries: how often a job that has used up its time is queued again, from its checkpoint.

    Example:
        >>> Submitit("local", cpus=2).text
        'submitit on this machine'

    Reference: https://github.com/facebookincubator/submitit.
    """

    def __init__(
        self,
        cluster: str = "auto",
        cpus: int | None = None,
        gpus: float | int | None = None,
        time: int = 240,
        partition: str | None = None,
        slurm: Mapping[str, str | int] | None = None,
        retries: int = 3,
    ):
        super().__init__(cpus, gpus)
        if cluster not in ("auto", "slurm", "local"):
            raise ArgumentError("cluster", "needs auto, slurm or local", cluster, "--cluster auto")
        if gpus is not None and gpus != int(gpus):
            raise ArgumentError("gpus", "SLURM has whole GPUs", gpus, "--gpus 1")
        is_here = shutil.which("sbatch") is not None and shutil.which("srun") is not None
        if cluster == "slurm" and not is_here:
            raise StudyError("--cluster slurm: this machine has no sbatch and srun", "--cluster local")
        self.cluster = ("slurm" if is_here else "local") if cluster == "auto" else cluster
        self.time, self.partition, self.slurm, self.retries = time, partition, dict(slurm or {}), retries
        self.submitit: Any = import_extra("submitit")

    @property
    def has_nodes(self) -> bool:
        """SLURM has; processes of this machine all begin at once."""
        return self.cluster == "slurm"

    @property
    def text(self) -> str:
        """SLURM, or this machine."""
        return "SLURM" if self.cluster == "slurm" else "submitit on this machine"

    def submit(self, submission: Submission) -> "_Job":
        """Submit a job; its script and logs go to `state/submitit` in its folder."""
        folder = submission.folder / "state" / "submitit"
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)
        executor = self.submitit.AutoExecutor(folder, self.cluster, slurm_max_num_timeout=self.retries)
        path = plain_python_path()
        executor.update_parameters(
            name=f"moebius-{submission.folder.parent.name}-{submission.folder.name}",
            timeout_min=self.time,
            cpus_per_task=submission.cpus,
            gpus_per_node=int(submission.gpus) or None,
            slurm_partition=self.partition,
            slurm_additional_parameters=self.slurm or None,
            slurm_setup=[f"export PYTHONPATH={shlex.quote(path)}"] if path else None,
        )
        try:
            return _Job(self.submitit, executor.submit(_Checkpointed(submission)), folder)
        except self.submitit.core.utils.FailedJobError as error:
            reason = " ".join(str(error).split())
            raise StudyError(
                f"SLURM refuses {submission.folder} ({reason})", "--partition, --time or --slurm"
            ) from None


class _Checkpointed:
    """A submission that goes on in a new job when SLURM ends the first."""

    def __init__(self, submission: Submission):
        self.submission = submission

    def __call__(self) -> Outcome:
        return self.submission()

    def checkpoint(self) -> Any:
        """What submitit queues again; the folder holds the checkpoint already."""
        return import_extra("submitit").helpers.DelayedSubmission(self)


class _Job:
    """A job of submitit."""

    def __init__(self, submitit: Any, job: Any, folder: Any):
        self.submitit, self.job, self.folder = submitit, job, folder

    def poll(self) -> Outcome | None:
        """The job's result, or what submitit says of its end."""
        if not self.job.done():
            return None
        try:
            outcome: Outcome = self.job.result()
        except self.submitit.core.utils.FailedJobError as error:
            reason = str(error).strip().splitlines()[-1]
            return Outcome(
                reason=f"its job {self.job.job_id} failed ({reason})", fix=command("less", self.job.paths.stderr)
            )
        except self.submitit.core.utils.UncompletedJobError:
            reason = f"its job {self.job.job_id} ended without a result (state {self.job.state})"
            return Outcome(reason=reason, fix=f"{command('less', self.job.paths.stderr)}    # the same command goes on")
        if not outcome.errors and outcome.reason is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        return outcome

    def cancel(self) -> None:
        """End the job, in the queue too."""
        self.job.cancel()
