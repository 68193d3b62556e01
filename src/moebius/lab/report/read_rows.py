"""Reading a run's routing.parquet, which has one line per image."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.kit.errors import StudyError
from moebius.lab.report.gate_rows import ROOT, SplitRows

# gate_3: weight of the root gate's expert 3; gate[experts.0]_3: the same of the gate at module path experts.0.
_WEIGHT_COLUMN = re.compile(r"gate(?:\[(?P<path>.*)\])?_(?P<expert>\d+)")


def read_rows(path: Path, class_names: tuple[str, ...], domain_names: tuple[str, ...]) -> list[SplitRows]:
    """Read the rows of the training and the test split; a split without rows is left out.

    Raises:
        StudyError: the file cannot be read or lacks a column.
    """
    try:
        table = pq.read_table(path)
        split_names = np.asarray(table["split"].cast(pa.string()).to_numpy(zero_copy_only=False))
        columns = {name: table[name].to_numpy().astype(np.int64) for name in ("label", "prediction", "domain")}
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StudyError(
            f"{path}: cannot be read ({error})", "remove the run's folder and run the study again"
        ) from None
    weight_columns: dict[str, dict[int, str]] = {}
    for name in table.column_names:
        if match := _WEIGHT_COLUMN.fullmatch(name):
            weight_columns.setdefault(match["path"] or ROOT, {})[int(match["expert"])] = name
    gates = {
        gate: np.stack([table[names[expert]].to_numpy() for expert in sorted(names)], 1)
        for gate, names in weight_columns.items()
    }
    splits = []
    for split in ("train", "test"):
        rows = np.flatnonzero(split_names == split)
        if rows.size:
            splits.append(
                SplitRows(
                    split,
                    *(columns[name][rows] for name in ("label", "prediction", "domain")),
                    gates={gate: weights[rows] for gate, weights in gates.items()},
                    class_names=class_names,
                    domain_names=domain_names,
                )
            )
    return splits
