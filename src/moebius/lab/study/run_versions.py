"""The versions that a run is trained with, in `state/versions.json`; what resumes in the middle keeps to them."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from moebius.kit.commands import command
from moebius.kit.errors import StudyError
from moebius.kit.files import write_json
from moebius.lab.documents import read_document
from moebius.lab.report.mixed_versions import SETTLING
from moebius.lab.study.study_file import describe_processor, describe_versions

Versions = dict[str, str]


class VersionsFile(BaseModel):
    """All versions that a run was trained with, the last at the end: several where it was resumed with others."""

    model_config = ConfigDict(extra="allow", strict=True)

    trained: list[Versions]


def current_versions() -> Versions:
    """Package → version, and the processor, of this process."""
    return {**describe_versions(), "processor": describe_processor()}


def read_versions(folder: Path) -> list[Versions]:
    """The versions that a run was trained with; none for one of an earlier version.

    Arguments:
        folder: of the run.

    Raises:
        DamagedFileError: the file is damaged.
    """
    path = _path(folder)
    return read_document(path, VersionsFile)["trained"] if path.exists() else []


def keep_versions(name: str, folder: Path, is_resumed: bool, mixed: bool = False) -> None:
    """Keep the versions of this process for a run that begins, or goes on with its checkpoint.

    Arguments:
        name: of the run.
        folder: of the run.
        is_resumed: whether there is a checkpoint.
        mixed: whether the run may go on with other versions than it was begun with.

    Raises:
        StudyError: the run goes on with another torch or moebius, which may give other bits.
    """
    trained, now = read_versions(folder) if is_resumed else [], current_versions()
    if trained and trained[-1] == now:
        return
    unequal = [key for key in SETTLING if trained and trained[-1].get(key) != now[key]]
    if unequal and not mixed:
        pairs = ", ".join(f"{key} {trained[-1].get(key)} then, {now[key]} now" for key in unequal)
        packages = command("pip", "install", *(f"{key}=={trained[-1].get(key)}" for key in unequal))
        rule = f"{name}: is in the middle of its training, and other versions may give other bits ({pairs})"
        raise StudyError(rule, f"{packages}    # or go on with these: moebius run … --allow-mixed")
    write_json(_path(folder), {"trained": [*trained, now]})


def _path(folder: Path) -> Path:
    return folder / "state" / "versions.json"
