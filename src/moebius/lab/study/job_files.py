"""The files of a job, for a node that does not see the study's folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from moebius.kit.errors import StudyError
from moebius.kit.files import atomic_path
from moebius.lab.study.job_spec import JobSpec

# Of a finished stage a run reads these.
OF_STAGES = ("model.safetensors", "result.json")
# Of a job's own files these are of one attempt on one machine.
LEFT = ("messages.jsonl", "submitit")
# Whoever sees this file takes the run for finished.
LAST = "result.json"


@dataclass(frozen=True)
class JobFiles:
    """Files by their paths in the folder of a study, or in that of its stages.

    Arguments:
        folder: of the job.
        runs: folders of its runs.
        files: path → content.
    """

    folder: str
    runs: Sequence[str]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, job: JobSpec) -> "JobFiles":
        """What a node needs to do a job, or to go on with it.

        Raises:
            StudyError: stages lie outside of the study's folder.
        """
        root = job_root(job.folder)
        stages = sorted({folder.absolute() for run in job.runs for folder in run.folders.values()})
        outside = next((folder for folder in stages if not folder.is_relative_to(root)), None)
        if outside is not None:
            rule = f"{outside}: a stage outside of {root} cannot travel to nodes that share no folder"
            raise StudyError(rule, "without --stages, or --shared with a folder that all nodes see")
        runs = [run.folder.absolute() for run in job.runs]
        paths = [*_own_paths(runs), *(folder / name for folder in stages for name in OF_STAGES)]
        files = {_relative(path, root): path.read_bytes() for path in paths if path.is_file()}
        return cls(_relative(job.folder.absolute(), root), [_relative(run, root) for run in runs], files)

    def unpack(self, root: Path) -> None:
        """Write the files below a folder, each run's result last.

        Raises:
            StudyError: a path leads out of the runs' and stages' folders.
        """
        for name in sorted(self.files, key=lambda name: name.endswith(f"/{LAST}")):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StudyError(f"a node has sent a file that is not of its job: {name}", "look at that node")
            with atomic_path(root / name) as temporary:
                temporary.write_bytes(self.files[name])

    def results(self, root: Path) -> "JobFiles":
        """The files of the job's runs as they are below a folder now."""
        paths = [path for path in _own_paths([root / run for run in self.runs]) if path.name != "job.json"]
        return JobFiles(self.folder, self.runs, {_relative(path, root): path.read_bytes() for path in paths})


def job_root(folder: Path) -> Path:
    """The folder of the study, or of its stages, that a job's folder is in."""
    return folder.absolute().parent.parent


def _own_paths(runs: Sequence[Path]) -> Iterator[Path]:
    for run in runs:
        for path in sorted(run.rglob("*")):
            is_left = path.name.startswith(".") or any(part in LEFT for part in path.relative_to(run).parts)
            if path.is_file() and not is_left:
                yield path


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
