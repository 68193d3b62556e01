"""Parquet files of images and labels with other columns, other cells and changed bytes."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moebius.lab.data import load_sets
from moebius.lab.data.sources.hub import Hub
from mutations.pictures import make_pictures
from mutations.trials import Entry
from mutations.values import VALUES, swap_bytes, swap_value

ROWS = 6
IMAGES: list[Any] = ["text", 7, None, [1, 2], b"", {"bytes": None, "path": "/dev/zero"}, {"bytes": "x", "path": 1}]
LABELS: list[Any] = [
    "no",
    1,
    10**18,
    -1,
    None,
    0.5,
    float("nan"),
    [1, 2],
    {"a": 1},
    b"x",
    True,
    "a\0b",
    "",
    "x" * 10**4,
]


class Parquet(Entry):
    """Files of a set in the hub's layout."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.set, self.pictures = folder / "set", [content for _, content in make_pictures().values()]

    def mutate(self, draw: random.Random) -> str:
        """Write both files anew; one of them is odd."""
        shutil.rmtree(self.set, ignore_errors=True)
        self.set.mkdir()
        odd, change = draw.choice(["train", "test"]), ""
        for split in ("train", "test"):
            rows = [{"bytes": draw.choice(self.pictures), "path": None} for _ in range(ROWS)]
            columns: dict[str, Any] = {"image": rows, "label": [number % 2 for number in range(ROWS)]}
            features: Any = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["no", "yes"]}}
            action = draw.choice(["image", "label", "features", "columns", "bytes", "schema"]) if split == odd else ""
            if action in ("image", "label"):
                value = draw.choice(IMAGES if action == "image" else LABELS)
                columns[action] = [value] * ROWS
                change = f"{split}: {action} {value!r:.60}"
            elif action == "features":
                change = f"{split}: features {swap_value(features, draw)}"
            table = pa.table(columns)
            if action == "schema":
                features, change = draw.choice(VALUES), f"{split}: other features"
            if draw.random() < 0.7 or action in ("features", "schema"):
                text = json.dumps({"info": {"features": features}})
                table = table.replace_schema_metadata({"huggingface": text})
            if action == "columns":
                table, change = swap_columns(table, draw)
                change = f"{split}: {change}"
            path = self.set / f"{split}-00000-of-00001.parquet"
            pq.write_table(table, path, use_dictionary=draw.random() < 0.5, compression=draw.choice(["none", "snappy"]))
            if action == "bytes":
                content, change = swap_bytes(path.read_bytes(), draw)
                path.write_bytes(content)
        return f"parquet: {change}"

    def call(self) -> None:
        """Load the set."""
        load_sets([Hub("any/set")], size=4, data_dir=self.folder, cache_dir=self.folder / "cache")


def swap_columns(table: pa.Table, draw: random.Random) -> tuple[pa.Table, str]:
    """A column less, twice, empty, of another type, or by another name."""
    name = draw.choice(table.column_names)
    place, action = (
        table.column_names.index(name),
        draw.choice(["without", "twice", "none", "name", "dictionary", "rows"]),
    )
    if action == "without":
        table = table.remove_column(place)
    elif action == "twice":
        table = table.append_column(name, table[name])
    elif action == "none":
        table = table.set_column(place, name, pa.nulls(len(table)))
    elif action == "name":
        table = table.rename_columns(
            [draw.choice(["", "a.b", "x\0y", "label"]) if each == name else each for each in table.column_names]
        )
    elif action == "rows":
        table = table.slice(0, draw.choice([0, 1]))
    elif not pa.types.is_struct(table[name].type):
        table = table.set_column(place, name, table[name].dictionary_encode())
    return table, f"{name}: {action}"
