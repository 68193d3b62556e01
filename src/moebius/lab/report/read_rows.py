"""Reading a run's routing.parquet, which has one line per row."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from moebius.kit.errors import StudyError
from moebius.kit.seals import check_seal
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.run_fix import rewrite_fix

# The weight of a gate's expert, such as gate_3, experts.0.gate_3 and gates.price_3.
_WEIGHT_COLUMN = re.compile(r"((?:.+\.)?gate(?:s\.[^:]+)?)_(\d+)")


def read_rows(path: Path, class_names: tuple[str, ...], domain_names: tuple[str, ...]) -> list[SplitRows]:
    """Read the rows of the training and the test split; a split without rows is left out.

    Raises:
        StudyError: the file cannot be read or lacks a column.
    """
    check_seal(path, rewrite_fix(path))
    try:
        table = pq.read_table(path)
        split_names = np.asarray(table["split"].cast(pa.string()).to_numpy(zero_copy_only=False))
        domains = table["domain"].to_numpy().astype(np.int64)
        # A row of several targets has neither label nor prediction here.
        absent = np.full(len(domains), np.nan)
        outcome = {
            name: table[name].to_numpy() if name in table.column_names else absent for name in ("label", "prediction")
        }
        class_names = class_names if "label" in table.column_names else ()
        right = outcome["label"] == outcome["prediction"]
        scores = table["score"].to_numpy() if "score" in table.column_names else right
        columns = {
            "score": scores.astype(float),
            **{name: values.astype(np.int64) if class_names else values for name, values in outcome.items()},
            "domain": domains,
        }
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StudyError(f"{path}: cannot be read ({error})", rewrite_fix(path)) from None
    weight_columns: dict[str, dict[int, str]] = {}
    for name in table.column_names:
        if match := _WEIGHT_COLUMN.fullmatch(name):
            weight_columns.setdefault(match[1], {})[int(match[2])] = name
    gates = {
        gate: np.stack([table[names[expert]].to_numpy() for expert in sorted(names)], 1)
        for gate, names in weight_columns.items()
    }
    splits = []
    for split in ("train", "test"):
        rows = np.flatnonzero(split_names == split)
        if rows.size:
            score, label, prediction, domain = (column[rows] for column in columns.values())
            of_split = {gate: weights[rows] for gate, weights in gates.items()}
            features, alone = (
                {
                    name.removeprefix(lead): table[name].to_numpy()[rows]
                    for name in table.column_names
                    if name.startswith(lead)
                }
                for lead in ("x:", "alone:")
            )
            losses, confidence = (_column(table, name, rows) for name in ("loss", "probability"))
            columns_of_split = (label, prediction, domain, class_names, domain_names, of_split, score)
            splits.append(SplitRows(split, *columns_of_split, features, alone, losses, confidence))
    return splits


def _column(table: pa.Table, name: str, rows: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"] | None:
    return table[name].to_numpy()[rows].astype(float) if name in table.column_names else None
