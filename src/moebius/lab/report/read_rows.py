"""Reading a run's routing.parquet, which has one line per row."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from moebius.kit.errors import StudyError
from moebius.kit.seals import check_seal
from moebius.lab.report.gate_rows import SplitRows
from moebius.lab.report.run_fix import rewrite_fix

# The weight of a gate's expert, such as gate_3, experts.0.gate_3 and gates.price_3.
_WEIGHT_COLUMN = re.compile(r"((?:.+\.)?gate(?:s\.[^:]+)?)_(\d+)")

MOST_CELLS = 1 << 32
# What a table of another kind ends in.
UNREADABLE = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, OverflowError, UnicodeError)


def read_rows(path: Path, class_names: tuple[str, ...], domain_names: tuple[str, ...]) -> list[SplitRows]:
    """Read the rows of the training and the test split; a split without rows is left out.

    Raises:
        StudyError: the file cannot be read or lacks a column.
    """
    try:
        check_seal(path, rewrite_fix(path))
        check_rows(path)
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
        gates = _read_gates(table)
        leads = {lead: _read_columns(table, lead) for lead in ("x:", "alone:")}
        losses, confidence = (_read_column(table, name) for name in ("loss", "probability"))
    except UNREADABLE as error:
        raise StudyError(f"{path}: cannot be read ({error})", rewrite_fix(path)) from None
    splits = []
    for split in ("train", "test"):
        rows = np.flatnonzero(split_names == split)
        if rows.size:
            score, label, prediction, domain = (column[rows] for column in columns.values())
            of_split = {gate: weights[rows] for gate, weights in gates.items()}
            features, alone = ({name: column[rows] for name, column in named.items()} for named in leads.values())
            figures = (None if column is None else column[rows] for column in (losses, confidence))
            columns_of_split = (label, prediction, domain, class_names, domain_names, of_split, score)
            splits.append(SplitRows(split, *columns_of_split, features, alone, *figures))
    return splits


def check_rows(path: Path) -> None:
    """Check that a table of rows is not larger than any that a run writes, before it is decoded.

    Raises:
        ValueError: it is.
    """
    about = pq.read_metadata(path)
    if about.num_rows * about.num_columns > MOST_CELLS:
        raise ValueError(f"its {about.num_rows:,} rows of {about.num_columns:,} columns are more than a run writes")


def _read_gates(table: pa.Table) -> dict[str, Float[np.ndarray, "T experts"]]:
    names: dict[str, dict[int, str]] = {}
    for name in table.column_names:
        if match := _WEIGHT_COLUMN.fullmatch(name):
            names.setdefault(match[1], {})[int(match[2])] = name
    return {
        gate: np.stack([_numbers(table, columns[expert]) for expert in sorted(columns)], 1)
        for gate, columns in names.items()
    }


def _read_columns(table: pa.Table, lead: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(lead): _numbers(table, name) if lead == "alone:" else table[name].to_numpy()
        for name in table.column_names
        if name.startswith(lead)
    }


def _read_column(table: pa.Table, name: str) -> Float[np.ndarray, " T"] | None:
    return _numbers(table, name).astype(float) if name in table.column_names else None


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    values = table[name].to_numpy()
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds no numbers")
    return values
