"""The page in a folder, for some rows, to be opened without a server."""

import os
import shutil
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from moebius.kit.commands import beside
from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.explorer.groups import Groups
from moebius.lab.explorer.page_writer import PageWriter
from moebius.lab.explorer.row_query import RowQuery
from moebius.lab.explorer.row_table import GateColumns, RowTable

if TYPE_CHECKING:
    from moebius.lab.explorer.explorer import Explorer

# Rows of one pass.
PIECE = 64
# By which an earlier export is recognised.
MARK = '<meta name="generator" content="moebius explorer">'


def write_export(explorer: "Explorer", folder: Path, rows: int) -> Path:
    """Write index.html, static/ and the pictures of the rows into a folder.

    Arguments:
        explorer: whose views are written.
        folder: new, empty, or of an earlier export, which is replaced when the new one is complete.
        rows: how many rows.

    Returns:
        The path of index.html.

    Raises:
        ArgumentError: `rows` is below 1, or the folder holds something else.
        StudyError: the folder cannot be written.
    """
    if rows < 1:
        raise ArgumentError("rows", "needs at least 1", rows, "--export-rows 300")
    _check(folder)
    table = take_rows(explorer.table, telling_rows(explorer.table, rows))
    writer = PageWriter(explorer.source, table, explorer.title, is_offline=True, every=explorer.table)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            _write(explorer, writer, table, beside)
            beside.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {error.strerror}", "--export another/folder") from None
    return folder / "index.html"


def telling_rows(table: RowTable, rows: int) -> Int[np.ndarray, " rows"]:
    """Places of rows: a quarter of the largest regret, a quarter of the largest loss, the others evenly spread.

    Arguments:
        table: of all rows.
        rows: how many.
    """
    count = len(table)
    if count <= rows:
        return np.arange(count)
    chosen: dict[int, None] = {}
    for column in ("regret", "loss"):
        values = np.nan_to_num(table.frame[column].to_numpy(dtype=float), nan=-np.inf)
        worst = [place for place in np.argsort(-values, kind="stable").tolist() if place not in chosen]
        chosen |= dict.fromkeys(worst[: rows // 4])
    left = np.setdiff1d(np.arange(count), np.array([*chosen], dtype=int))
    spread = left[np.linspace(0, len(left) - 1, rows - len(chosen)).round().astype(int)]
    return np.sort(np.concatenate([np.array([*chosen], dtype=int), spread]))


def take_rows(table: RowTable, places: Int[np.ndarray, " rows"]) -> RowTable:
    """The lines of a table at some places."""
    gates = {
        name: GateColumns(
            gate.place,
            gate.weights[places],
            gate.scores[places],
            None if gate.losses is None else gate.losses[places],
            gate.is_distribution,
        )
        for name, gate in table.gates.items()
    }
    groups = Groups(table.groups.noun, table.groups.names, table.groups.numbers[places])
    return RowTable(table.frame.iloc[places].reset_index(drop=True), gates, groups)


def _check(folder: Path) -> None:
    if not folder.exists():
        return
    index = folder / "index.html"
    is_export = index.is_file() and MARK in index.read_text(encoding="utf-8", errors="replace")[:2000]
    if not folder.is_dir() or (any(folder.iterdir()) and not is_export):
        rule = "needs a new folder, an empty one, or an earlier export"
        raise ArgumentError("export", rule, str(folder), f"--export {beside(folder, '-explorer')}")


def _write(explorer: "Explorer", writer: PageWriter, table: RowTable, folder: Path) -> None:
    numbers = table.frame["row"].tolist()
    panels = []
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE]
        rows = explorer.source.explain(piece, keeps_outputs=True)
        panels += [(f"row-{number}", writer.row(rows, place, number)) for place, number in enumerate(piece)]
    (folder / "index.html").write_text(writer.offline_page(RowQuery(), panels), encoding="utf-8")
    static = files("moebius.lab.explorer").joinpath("static")
    (folder / "static").mkdir()
    for name in ("explorer.css", "explorer.js"):
        (folder / "static" / name).write_bytes(static.joinpath(name).read_bytes())
    if explorer.source.are_pictures:
        (folder / "image").mkdir()
        for number in numbers:
            (folder / "image" / f"{number}.png").write_bytes(explorer.picture(number))
