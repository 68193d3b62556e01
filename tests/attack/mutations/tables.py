"""Tables in CSV and Parquet files with odd cells and columns, and odd options, and rows for a model of a table."""

import datetime
import decimal
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.lab.data import load_sets
from moebius.lab.data.sources.csv import CSV
from moebius.lab.data.sources.parquet import Parquet
from moebius.lab.data.tables.read_file import read_csv, read_parquet_table
from mutations.trials import Entry
from mutations.values import swap_bytes, swap_text

ROWS = 40
CELLS: list[Any] = [
    "text",
    10**18,
    -(10**400),
    1e308,
    float("inf"),
    float("nan"),
    None,
    True,
    [1, 2],
    {"a": 1},
    b"\xff",
]
CELLS += [decimal.Decimal("1.5"), datetime.date(2024, 1, 1), datetime.datetime(9999, 1, 1), datetime.timedelta(1), ""]
CELLS += [np.datetime64("NaT"), 2**63, "1e5", "NaN", "-0", "١٢", "1,5", "\ud800", "a\0b", "=1+1", "x" * 10**5, 1 + 2j]
TEXTS = ["", ",", '"', '""', "\n", "\r", "\t", "nan", "inf", "1e999", "9" * 5000, "text", "\0", "١", ";", "a,b\n" * 50]
COLUMNS = ["size", "color", "kind", "when", "group", "none", "", "target", "x" * 300, "²"]
OPTIONS = ["target", "columns", "drop", "categories", "numbers", "group", "time", "domain"]


class Tables(Entry):
    """Files of tables, with options, and rows that a model of a table is asked about."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        generator = np.random.default_rng(0)
        self.frame = pd.DataFrame(
            {
                "size": generator.random(ROWS),
                "color": [["red", "blue", None][row % 3] for row in range(ROWS)],
                "when": [f"2024-01-{1 + row % 28:02}" for row in range(ROWS)],
                "group": [row // 4 for row in range(ROWS)],
                "kind": [["a", "b"][row % 2] for row in range(ROWS)],
            }
        )
        path = folder / "whole.csv"
        self.frame.to_csv(path, index=False)
        self.columns = load_sets([CSV(str(path), "kind", drop=["when"])], size=1).columns

    def mutate(self, draw: random.Random) -> str:
        """Write the file anew, and choose options."""
        self.is_parquet, self.asks = draw.random() < 0.5, draw.random() < 0.3
        self.path = self.folder / f"table.{'parquet' if self.is_parquet else 'csv'}"
        self.options: dict[str, Any] = {"target": "kind", "drop": ["when"]}
        changes = []
        if draw.random() < 0.5:
            for name in draw.sample(OPTIONS, draw.randint(1, 3)):
                value = draw.choice(COLUMNS)
                self.options[name] = [value] if name in ("columns", "drop", "categories", "numbers") else value
            changes.append(f"{self.options}")
        frame = self.frame.copy()
        action = draw.choice(["cells", "column", "names", "rows", "text", "bytes"])
        name = draw.choice(list(frame.columns))
        if action in ("cells", "column"):
            value = draw.choice(CELLS)
            frame[name] = frame[name].astype(object)
            for row in range(ROWS) if action == "column" else draw.sample(range(ROWS), 3):
                frame.at[row, name] = value
            changes.append(f"{name}: {action} {value!r:.60}")
        elif action == "names":
            other = draw.choice([*frame.columns, *COLUMNS, "a\0b", "\x1b[2J"])
            frame = frame.rename(columns={name: other})
            changes.append(f"{name} is called {other!r:.60}")
        elif action == "rows":
            frame = frame.iloc[: draw.choice([0, 1, 2, 3])]
            changes.append(f"{len(frame)} rows")
        self._write(frame)
        if action in ("text", "bytes"):
            content = self.path.read_bytes()
            if self.is_parquet or action == "bytes":
                content, change = swap_bytes(content, draw)
            else:
                content = swap_text(content.decode(), draw, TEXTS, ',"\n\r\t\0;x').encode()
                change = repr(content[:200])
            self.path.write_bytes(content)
            changes.append(change)
        return f"{self.path.name}{' asked' * self.asks}: {', '.join(changes)}"

    def _write(self, frame: pd.DataFrame) -> None:
        if not self.is_parquet:
            self.path.write_bytes(frame.to_csv(index=False).encode("utf-8", "surrogatepass"))
            return
        arrays = []
        for place in range(frame.shape[1]):
            cells = frame.iloc[:, place]
            try:
                arrays.append(pa.array(cells.tolist()))
            except (pa.ArrowException, OverflowError, ValueError, TypeError):  # cells of several types
                texts = [str(cell).encode("utf-8", "replace").decode() for cell in cells]
                arrays.append(pa.array(texts))
        pq.write_table(pa.Table.from_arrays(arrays, names=list(map(str, frame.columns))), self.path)

    def call(self) -> None:
        """Load the table; or encode its rows, as `moebius predict` does."""
        if self.asks:
            frame = read_parquet_table(self.path) if self.is_parquet else read_csv(self.path, ",", ())
            self.columns.encode(frame)
            if "kind" in frame:
                self.columns.targets[0].encode(frame["kind"], "label")
            return
        load_sets([(Parquet if self.is_parquet else CSV)(str(self.path), **self.options)], size=1)
