"""The rows that `moebius predict` is asked about: pictures, tables, or rows of the run's own data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError, DataError
from moebius.kit.files import is_plain_file
from moebius.lab.console import PrintableConsole
from moebius.lab.predict import ExplainedRows, Subject

TABLES = (".csv", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Asked:
    """Rows and what is known about them.

    Arguments:
        kind: the word for a row at the head of a table.
        x, context: as the model takes them.
        names: of the rows.
        label: of the rows; None where it is not known.
        index: of the rows of a table; None for others.
    """

    kind: str
    x: Any
    context: Any
    names: list[str]
    label: Any = None
    index: Any = None

    def explain(self, subject: Subject, top: int, alternatives: bool | None) -> ExplainedRows:
        """The explanations, computed together."""
        return ExplainedRows(subject, self.x, self.context, self.names, self.label, top, alternatives)


def ask(
    subject: Subject,
    files: Sequence[Path],
    rows: Sequence[str],
    labels: Sequence[str],
    labels_by_folder: bool,
    domain: str | None,
    data_dir: Path | None,
) -> Asked:
    """Read what the command names.

    Raises:
        ArgumentError: it names nothing, or several kinds of rows at once; labels do not fit.
        DataError, StudyError: a file, or the run's data, cannot be read.
    """
    if bool(files) == bool(rows):
        rule = "needs files, or rows of the run's own data, and not both"
        names = [*map(str, files), *rows]
        raise ArgumentError("FILE", rule, names, command("moebius", "predict", subject.run or "RUN", "--row", "test:0"))
    if rows:
        return _own_rows(subject, rows, data_dir)
    is_table = [file.suffix.lower() in TABLES for file in files]
    if all(is_table):
        return _tables(subject, files, domain)
    pictures = _pictures(files)
    x, context, names = subject.read([str(path) for path in pictures], domain)
    label: Any = None
    if labels_by_folder:
        label = [path.absolute().parent.name for path in pictures]
    elif labels:
        label = [*labels] * len(pictures) if len(labels) == 1 else [*labels]
    return Asked("image", x, context, names, label)


def _own_rows(subject: Subject, rows: Sequence[str], data_dir: Path | None) -> Asked:
    from moebius.lab.study.run_rows import load_run_data, take_run_rows

    assert subject.run is not None
    taken = take_run_rows(load_run_data(subject.run, data_dir), rows)
    x, context, _ = subject.read(taken.x, taken.domains)
    return Asked("row", x, context, taken.names, taken.labels)


def _tables(subject: Subject, files: Sequence[Path], domain: str | None) -> Asked:
    import pandas as pd

    from moebius.lab.data.tables.read_file import find_file, read_csv, read_parquet_table

    frames = []
    for file in files:
        path = find_file(str(file), None)
        frames.append(read_parquet_table(path) if file.suffix.lower() == ".parquet" else read_csv(path, ",", ()))
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
    x, context, names = subject.read(frame, domain)
    if len(frames) > 1:
        names = [f"{file}:{row}" for file, each in zip(files, frames, strict=True) for row in each.index]
    has_labels = subject.targets is not None and all(target.name in frame for target in subject.targets)
    return Asked("row", x, context, names, frame if has_labels else None, frame.index)


def _pictures(files: Sequence[Path]) -> list[Path]:
    """The files, and in the place of a folder the pictures in it, at any depth, in order of their paths.

    The terminal is told how many files of which suffix are left out of a folder.
    """
    pictures: list[Path] = []
    for file in files:
        if file.is_dir():
            paths = sorted(path for path in file.rglob("*") if path.is_symlink() or not path.is_dir())
            inside = [path for path in paths if path.suffix.lower() in PICTURES and is_plain_file(path)]
            if not inside:
                raise DataError(
                    f"{file}: the folder holds no pictures ({', '.join(PICTURES)})", "the name of a picture"
                )
            pictures += inside
            _print_left_out(file, Counter(path.suffix.lower() or "no suffix" for path in set(paths) - set(inside)))
        else:
            pictures.append(file)
    return pictures


def _print_left_out(folder: Path, counts: Counter[str]) -> None:
    if counts:
        texts = ", ".join(f"{count:,} of {suffix}" for suffix, count in sorted(counts.items()))
        text = f"{folder}: {counts.total():,} files that are no pictures are left out ({texts})"
        PrintableConsole(stderr=True, highlight=False).print(escape(text), soft_wrap=True)
