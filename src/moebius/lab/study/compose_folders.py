"""Compositions of models in folders, on rows of a file or of a run's own data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.compose.compose import compose
from moebius.lab.compose.composition import Composition
from moebius.lab.data.scale import PixelScale
from moebius.lab.study.diagnose_run import find_runs
from moebius.lab.study.rows_file import read_rows_file
from moebius.lab.study.run_rows import load_run_data
from moebius.storage.header import read_header


def compose_folders(
    models: Sequence[Path], data: Path, data_dir: Path | None = None, **options: Any
) -> tuple[Composition, Any]:
    """Compose models that `mb.save` wrote or that studies have trained.

    Arguments:
        models: folders of saved models, of runs, or of studies and variants for all finished runs inside.
        data: a safetensors file with tensors x and y, or a run's folder for the rows that its study has held out, or
            else its test rows.
        data_dir: folder with local copies of data sets, for a run's rows.
        options: of `mb.compose`.

    Returns:
        The composition, and the rows' inputs.

    Raises:
        StudyError: a folder holds no model.
        DataError: the file or the data cannot be read.
        ArgumentError: models, rows and options do not fit.
    """
    folders = [inner for folder in models for inner in _folders(folder)]
    if not data.is_dir():
        rows = read_rows_file(data)
        return compose([str(folder) for folder in folders], rows, **options), rows[0]
    (run,) = find_runs([data])[:1]
    dataset = load_run_data(run, data_dir)
    _check_scales(folders, dataset.scale)
    options.setdefault("task", read_header(run)["data"].get("task"))
    split = dataset.test if dataset.validation is None else dataset.validation
    return compose([str(folder) for folder in folders], dataset, **options), split.images


def _folders(folder: Path) -> list[Path]:
    if (folder / "model.safetensors").is_file():
        return [folder]
    return find_runs([folder])


def _check_scales(folders: Sequence[Path], scale: PixelScale) -> None:
    """Models of runs have to read pixels on the scale of the rows."""
    for folder in folders:
        learned = PixelScale.from_values((read_header(folder).get("data") or {}).get("scale"))
        if learned != scale:
            rule = f"has learned pixels on the scale {learned.kind}, and the rows have the scale {scale.kind}"
            raise ArgumentError(str(folder), rule, learned.kind, "models that were trained on one scale")
