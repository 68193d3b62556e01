"""The explorer of a finished run with rows of its own data, or of a saved model with rows of a file."""

from collections.abc import Callable
from pathlib import Path

from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.nested import map_nested
from moebius.lab.explorer.explore_model import explore_model
from moebius.lab.explorer.explorer import ROWS, Explorer
from moebius.lab.explorer.row_source import RowSource
from moebius.lab.predict.forward import computable
from moebius.lab.predict.subject import Subject
from moebius.lab.study.rows_file import read_rows_file
from moebius.lab.study.run_rows import load_run_data
from moebius.storage.load import load
from moebius.tasks._choice import TaskLike


def explore_run(
    run: Path,
    rows: int = ROWS,
    split: str = "test",
    data_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Explorer:
    """The explorer of a finished run with rows of its own data.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.
        rows: how many rows are computed at once.
        split: test, validation or train.
        data_dir: folder with local copies of the data sets; None for the one that the study was planned with.
        progress: is called with the number of rows that are done, and that of all.

    Raises:
        StudyError: the folder holds no finished run, or nothing tells its data.
        DataError: the model or the data cannot be read.
        ArgumentError: there is no such split.
    """
    subject = Subject.of(run)
    data = load_run_data(run, data_dir)
    splits = {"test": data.test, "validation": data.validation, "train": data.train}
    taken = splits.get(split)
    if taken is None:
        names = [name for name, value in splits.items() if value is not None]
        raise ArgumentError("split", f"needs one of {', '.join(names)}", split, command("--split", names[0]))
    absolute = run.absolute()
    title = " / ".join((absolute.parents[1].name, absolute.parent.name, absolute.name))
    source = RowSource(subject, taken, split, data.domains, data.columns)
    with computable(run):
        return Explorer(source, title, rows, progress)


def explore_saved(
    folder: Path,
    file: Path,
    task: TaskLike = "classification",
    rows: int = ROWS,
    progress: Callable[[int, int], None] | None = None,
    data_dir: Path | None = None,
) -> Explorer:
    """The explorer of a model that `mb.save` wrote, with rows of a file.

    Arguments:
        folder: of the model.
        file: a safetensors file with the tensors x, (T, …), and y, (T,) or another form of the task; or a run's folder
            for the rows that its study has held out, or else its test rows.
        task: what the model has learned.
        rows: how many rows are computed at once.
        progress: is called with the number of rows that are done, and that of all.
        data_dir: folder with local copies of data sets, for a run's rows.

    Raises:
        StudyError: no job of the run's study is left.
        DataError: the model or the file cannot be read, or the file lacks a tensor.
        ArgumentError: rows, targets, task and model do not fit.
    """
    if file.is_dir():
        dataset = load_run_data(file, data_dir)
        split = dataset.test if dataset.validation is None else dataset.validation
        data = map_nested(split.images, lambda images: scale_pixels(images, scale=dataset.scale)), split.labels
    else:
        data = read_rows_file(file)
    return explore_model(load(folder), data, task=task, rows=rows, title=folder.absolute().name, progress=progress)
