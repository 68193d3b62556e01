"""The file `routing.parquet` of a run: what became of each row, and how each gate weighed it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from moebius.kit.files import atomic_path
from moebius.kit.seals import SEAL
from moebius.lab.data.split import Dataset, Split
from moebius.lab.training.evaluation import Evaluation
from moebius.lab.training.outcome import Trained

# Rows of so many numbers are written down, too: a figure can show what a model makes of them.
MOST_FEATURES = 2


def write_routing(path: Path, data: Dataset, trained: Trained) -> None:
    """Write a line for each test row, and for each training row that was evaluated.

    Targets and predictions of numbers are in the units of the table.

    Arguments:
        path: of the file.
        data: the rows.
        trained: the outcome.
    """
    tables = []
    for name, split in (("train", data.train), ("test", data.test)):
        rows = trained.evaluations.get(name)
        if rows is None:
            continue
        count = len(rows.domains)
        columns: dict[str, Any] = {
            "split": pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [name]).cast(pa.string()),
            "row": np.arange(count, dtype=np.int32),
            **dict(_target_columns(data, rows)),
            "domain": rows.domains.to(dtype=torch.int32).numpy(),
            "loss": rows.losses.float().numpy(),
            "score": rows.scores.float().numpy(),
        }
        if rows.probabilities is not None and rows.probabilities.ndim == 1:
            columns["probability"] = rows.probabilities.float().numpy()
        columns |= dict(_feature_columns(data, split))
        for expert in trained.alone if name == "test" and _has_features(split) else ():
            if expert.predictions.ndim == 1:
                columns[f"alone:{expert.paths[0]}"] = _plain(data, expert.predictions)
        for gate, weights in rows.gates.items():
            for number, column in enumerate(weights.float().unbind(1)):
                columns[f"{gate}_{number}"] = column.numpy()
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata({"digest": SEAL})
    with atomic_path(path, seal=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _target_columns(data: Dataset, rows: Evaluation) -> Iterator[tuple[str, np.ndarray]]:
    """Target and prediction where a row has one of each; rows of positions, labels or several tasks have none."""
    if isinstance(rows.labels, Tensor) and rows.labels.ndim == 1 and rows.predictions.ndim == 1:
        yield "label", _plain(data, rows.labels)
        yield "prediction", _plain(data, rows.predictions)


def _plain(data: Dataset, values: Tensor) -> np.ndarray:
    """Numbers in the units of the table; positions of classes as they are."""
    if data.classes:
        return values.to(dtype=torch.int32).numpy()
    numbers = values.float().numpy()
    decodes = data.columns is not None and len(data.columns.targets) == 1 and not data.columns.targets[0].classes
    return data.columns.targets[0].decode(numbers).astype(np.float32) if decodes else numbers  # type: ignore[union-attr]


def _has_features(split: Split) -> bool:
    return isinstance(split.images, Tensor) and split.images.ndim == 2 and split.images.shape[1] <= MOST_FEATURES


def _feature_columns(data: Dataset, split: Split) -> Iterator[tuple[str, np.ndarray]]:
    if data.columns is None or data.columns.categories or not _has_features(split):
        return
    for column, values in zip(data.columns.numbers, split.images.unbind(1), strict=False):
        yield f"x:{column.name}", (values.double() * column.scale + column.mean).float().numpy()
