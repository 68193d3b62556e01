"""Rows of a run's own data, by split and number."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moebius.kit.commands import command
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.data.batches import scale_pixels
from moebius.lab.data.nested import map_nested
from moebius.lab.data.scale import PixelScale
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.split import Dataset, Split
from moebius.lab.study.job_spec import JobSpec
from moebius.storage.header import read_header

_ROW = re.compile(r"(\w+):(\d+)")


@dataclass(frozen=True)
class RunRows:
    """Rows of the data that a run was trained and tested on.

    Arguments:
        x: the rows, as the model takes them.
        labels: in the form of the task.
        domains: (T,), the number of each row's domain.
        names: such as test:12.
    """

    x: Any
    labels: Any
    domains: Tensor
    names: list[str]


def load_run_data(run: Path, data_dir: Path | None = None) -> Dataset:
    """The data of a run, as its study has planned them, on its scale; a stage's are the rows that it selects.

    Arguments:
        run: folder of the run, OUT/VARIANT/seed-N.
        data_dir: folder with local copies of the data sets; None for the one that the study was planned with.

    Raises:
        StudyError: no job of the run's study is left, or the data are others now.
        DataError: the data cannot be read.
    """
    jobs = sorted((run / "job.json", *run.parent.parent.glob("*/seed-*/job.json")), key=lambda path: path.parent != run)
    path = next((path for path in jobs if path.is_file()), None)
    if path is None:
        fix = command("moebius", "run", "RECIPE", "--out", run.parent.parent, "--plan-only") + "    # writes it anew"
        raise StudyError(f"{run}: no job.json beside it tells which data it was trained on", fix)
    job = JobSpec.read(path.parent)
    # The device is that of the training; here nothing is trained. The job may be another seed's.
    name = run.absolute().name.removeprefix("seed-")
    seed = int(name) if name.isdigit() else None
    data = replace(job, device="cpu", data_dir=data_dir or job.data_dir).load_data(seed)
    data = data.with_scale(PixelScale.from_values(read_header(run)["data"].get("scale")))
    rows = next((each.selects for each in job.runs if each.folder.absolute() == run.absolute()), None)
    return data if rows is None else select_rows(data, **rows)


def take_run_rows(data: Dataset, rows: Sequence[str]) -> RunRows:
    """The rows with these names.

    Arguments:
        data: of the run.
        rows: such as "test:12", the row at position 12 of the test rows; also `train` and `validation`.

    Raises:
        ArgumentError: there is no such split or row.

    Example:
        >>> zeros = torch.zeros(3, dtype=torch.int64)
        >>> split = Split(torch.zeros(3, 2), zeros, zeros)
        >>> take_run_rows(Dataset(split, None, split, ("a",), ("set",), ""), ["test:2", "train:0"]).names
        ['test:2', 'train:0']
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    taken = [_take(row, {name: split for name, split in splits.items() if split is not None}) for row in rows]

    def join(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, Tensor):
            return torch.cat(list(values))
        if isinstance(first, dict):
            return {name: join([each[name] for each in values]) for name in first}
        return tuple(join(list(parts)) for parts in zip(*values, strict=True))

    x = map_nested(join([split.images for split in taken]), lambda images: scale_pixels(images, scale=data.scale))
    labels = join([split.labels for split in taken])
    return RunRows(x, labels, torch.cat([split.domains for split in taken]), list(rows))


def _take(row: str, splits: dict[str, Split]) -> Split:
    match = _ROW.fullmatch(row)
    if match is None:
        raise ArgumentError("row", "needs SPLIT:NUMBER", row, "--row test:0")
    name, number = match[1], int(match[2])
    if name not in splits:
        raise ArgumentError("row", f"needs one of {', '.join(splits)}", name, "--row test:0")
    if number >= len(splits[name]):
        last = len(splits[name]) - 1
        raise ArgumentError("row", f"needs a number 0 … {last} of {name}", number, command("--row", f"{name}:{last}"))
    return splits[name].take(slice(number, number + 1))
