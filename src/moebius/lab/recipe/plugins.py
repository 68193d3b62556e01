"""The plugin files of a command: which ones it loads, and whether they are those that a study began with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moebius.kit.commands import beside, command
from moebius.kit.errors import DataError, StudyError, UnknownKindError
from moebius.kit.plugins import load_plugin
from moebius.lab.documents import StudyFile, read_document


@dataclass(frozen=True)
class Plugin:
    """A Python file that registers kinds, in the version that this process has run.

    Arguments:
        file: its path as the user typed it.
        path: its absolute path, for processes with another working directory.
        digest: the SHA-256 of its content.
    """

    file: str
    path: Path
    digest: str

    def load(self) -> None:
        """Run the file in this process, unless it has run already.

        Raises:
            StudyError: the file has changed since the study was planned.
            MoebiusError: the file cannot be read, or running it fails.
        """
        if load_plugin(self.path) != self.digest:
            rule = f"plugin {self.file}: the file has changed since the study was planned"
            raise StudyError(rule, "run the same `moebius run` command again when the file is finished")

    def record(self) -> dict[str, str]:
        """The entry of this plugin in study.json."""
        return {"file": self.file, "sha256": self.digest}


def load_plugins(files: Iterable[str | Path]) -> tuple[Plugin, ...]:
    """Run plugin files in order; a file that is named twice counts once.

    Arguments:
        files: paths of Python files.

    Raises:
        MoebiusError: a file cannot be read, or running it fails.
    """
    plugins = [Plugin(str(file), Path(file).absolute(), load_plugin(file)) for file in files]
    return tuple({plugin.digest: plugin for plugin in plugins}.values())


def check_plugins(folder: Path, records: Sequence[Mapping[str, Any]], plugins: Sequence[Plugin]) -> None:
    """Refuse to continue a study without the plugins that it began with. Further plugins are allowed.

    Arguments:
        folder: the study's folder, for messages.
        records: the `plugins` of its study.json.
        plugins: those that this command has loaded.

    Raises:
        StudyError: a plugin is missing, or its content differs.
    """
    digests = {plugin.digest for plugin in plugins}
    by_name = {plugin.path.name: plugin for plugin in plugins}
    for record in records:
        if record["sha256"] in digests:
            continue
        plugin = by_name.get(Path(record["file"]).name)
        if plugin is None:
            rule = f"{folder}: the study began with the plugin {record['file']}, and this command does not load it"
            raise StudyError(rule, command("--plugin", record["file"]))
        change = f"SHA-256 {record['sha256'][:12]}… then, {plugin.digest[:12]}… now"
        rule = f"{folder}: the plugin {plugin.file} has changed since the study began ({change})"
        raise StudyError(rule, f"--out {beside(folder)}    # or restore the file")


@contextmanager
def suggest_plugins(run: Path) -> Iterator[None]:
    """Where the run is of a kind that is not known here, the fix of the error names the plugins of its study.

    Arguments:
        run: the folder of a run, OUT/VARIANT/seed-N.

    Raises:
        DataError: the block raises it.
    """
    try:
        yield
    except DataError as error:
        study = run.absolute().parent.parent / "study.json"
        records = read_document(study, StudyFile).get("plugins") or () if study.is_file() else ()
        if not (records and isinstance(error.__cause__, UnknownKindError)):
            raise
        fix = " ".join(command("--plugin", record["file"]) for record in records)
        raise DataError(error.message, fix) from None
