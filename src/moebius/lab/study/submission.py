"""A job as it is submitted: what a node needs to do it, and what it says at the end."""

import hashlib
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from moebius.kit.commands import move_aside
from moebius.kit.errors import MoebiusError, StudyError
from moebius.kit.files import open_to_append
from moebius.lab.study.job import run_job
from moebius.lab.study.job_files import JobFiles
from moebius.lab.study.job_messages import JobMessages
from moebius.lab.study.job_spec import JobSpec
from moebius.lab.study.study_file import describe_versions

# Seconds to wait for the lock of an attempt on a node that is thought dead: longer than the 90 s for which an NFS
# server keeps the locks of a client that it no longer hears.
LOCK_SECONDS = 120.0
# Packages whose versions have to be the same on all nodes.
SETTLING = ("moebius", "torch", "numpy")


@dataclass(frozen=True)
class Outcome:
    """How a submitted job has ended; which runs are finished, their folders say.

    Arguments:
        node: where it ended; empty where that is not known.
        errors: number of a run in the job → message and fix of its error.
        reason: why the job did not begin, or did not come to its end; None where it did.
        fix: for the reason.
        files: of its runs, where the node does not see the study's folder.
    """

    node: str = ""
    errors: Mapping[int, tuple[str, str | None]] = field(default_factory=dict)
    reason: str | None = None
    fix: str | None = None
    files: JobFiles | None = None


@dataclass(frozen=True)
class Submission:
    """One job for a node: a call does it there, as `moebius job FOLDER` does, from its checkpoint if there is one.

    Arguments:
        folder: absolute path of the job's folder, which the node must see under the same path.
        digest: of its `job.json`: a node that has another file under this path does not see the study's folder.
        versions: package → version here; others would give other bits.
        cpus, gpus: of the job.
        files: what the job needs, for a node that does not see its folder; None for one that does.
    """

    folder: Path
    digest: str
    versions: Mapping[str, str]
    cpus: int
    gpus: float | int
    files: JobFiles | None = None

    @classmethod
    def of(cls, job: JobSpec, cpus: int | None, gpus: float | int | None, shared: bool = True) -> "Submission":
        """The submission of a job whose `job.json` is written; see `Scheduler` for the other arguments."""
        folder = job.folder.absolute()
        gpus = float(job.processes * (job.device == "cuda")) if gpus is None else gpus
        cpus, files = cpus or job.threads * job.processes, None if shared else JobFiles.of(job)
        return cls(folder, _digest(folder), describe_versions(), cpus, gpus, files)

    @property
    def messages_path(self) -> Path:
        """The file in which the node writes what happens, line by line."""
        return self.folder / "state" / "messages.jsonl"

    def __call__(self) -> Outcome:
        """Do the job in this process; without a shared folder in a temporary one."""
        if self.files is None:
            return self._do()
        with TemporaryDirectory() as temporary:
            root = Path(temporary).resolve()
            self.files.unpack(root)
            outcome = replace(self, folder=root / self.files.folder)._do()
            return replace(outcome, files=self.files.results(root))

    def _do(self) -> Outcome:
        node = platform.node()
        try:
            self._check_node(node)
            job = JobSpec.read(self.folder)
            lines = self._open_messages()
        except MoebiusError as error:
            return Outcome(node, reason=error.message, fix=error.fix)
        with lines:
            messages = JobMessages(lines, job.runs)
            job.prepare_process()
            run_job(job.runs, job.load_data, job.device, messages, LOCK_SECONDS, job.processes, job.mixed)
        return Outcome(node, messages.errors)

    def _open_messages(self) -> IO[str]:
        path = self.messages_path
        try:
            path.parent.mkdir(exist_ok=True)
            return open_to_append(path)
        except OSError as error:
            raise StudyError(f"{path}: cannot be written ({error.strerror})", move_aside(path)) from None

    def _check_node(self, node: str) -> None:
        if not (self.folder / "job.json").is_file() or _digest(self.folder) != self.digest:
            rule = f"node {node} does not see {self.folder} (or sees another folder of this name)"
            fix = "--out, and --stages if given, in a folder that all nodes share under one path"
            raise StudyError(rule, fix)
        versions = describe_versions()
        unequal = [name for name in SETTLING if versions[name] != self.versions[name]]
        if unequal:
            pairs = ", ".join(f"{name} {versions[name]} there, {self.versions[name]} here" for name in unequal)
            packages = shlex.join(f"{name}=={self.versions[name]}" for name in unequal)
            rule = f"node {node} has other versions, which may give other bits ({pairs})"
            raise StudyError(rule, f"pip install {packages}    # on {node}")


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "job.json").read_bytes()).hexdigest()


def plain_python_path() -> str:
    """`PYTHONPATH` of this process with absolute paths, for processes with another working directory."""
    parts = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(str(Path(part).absolute()) for part in parts if part)
