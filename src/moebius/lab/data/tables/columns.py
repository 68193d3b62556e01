"""What is learned of a table's columns on the training rows, and how rows become numbers by it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from moebius.kit.errors import DataError
from moebius.kit.names import check_names
from moebius.lab.data.tables.column_types import read_categories, read_numbers
from moebius.lab.data.tables.table import Table
from moebius.tasks._task import ABSENT


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: a missing one becomes the median, then x becomes (x − mean) / scale.

    Arguments:
        name: of the column.
        median, mean, scale: of the training rows; the mean and the scale (the standard deviation, or 1 where it is 0)
            are those after missing numbers are replaced.
        has_missing: whether a number is missing in the training rows. A further feature then tells where: 1 for rows
            whose number is missing, 0 for others.
    """

    name: str
    median: float
    mean: float
    scale: float
    has_missing: bool


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories: a category becomes its position plus 1; missing and unknown ones become 0.

    Arguments:
        name: of the column.
        categories: of the training rows, as text.
    """

    name: str
    categories: tuple[str, ...]


@dataclass(frozen=True)
class TargetColumn:
    """A column to predict: a class becomes its position, and a number x becomes (x − mean) / scale.

    Arguments:
        name: of the column.
        classes: names of the classes, in the order of their positions; empty where the target is numbers.
        mean, scale: of the training rows' numbers; the scale is the standard deviation, or 1 where it is 0.
    """

    name: str
    classes: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, column: pd.Series, target_type: str, train: np.ndarray, where: str) -> "TargetColumn":
        """Learn a target.

        Arguments:
            column: of all rows; a value may be missing.
            target_type: "classes" or "numbers".
            train: positions of the training rows, by which numbers are standardised.
            where: name of the table, for error messages.
        """
        name = str(column.name)
        if target_type == "classes":
            return cls(name, tuple(read_categories(column, where)[1]))
        numbers = _fit_numbers(name, read_numbers(column, where)[train])
        return cls(name, (), numbers.mean, numbers.scale)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of a model's outputs for this target: those of the classes, or its own."""
        return self.classes or (self.name,)

    def encode(self, column: pd.Series, where: str) -> Shaped[Tensor, " T"]:
        """The target of each row: int64 positions, −100 where it is missing or unknown; or float32 numbers, NaN there.

        Raises:
            DataError: a value is no number.
        """
        if not self.classes:
            return torch.from_numpy(((read_numbers(column, where) - self.mean) / self.scale).astype(np.float32))
        positions, texts = read_categories(column, where)
        places = {name: place for place, name in enumerate(self.classes)}
        return torch.from_numpy(np.array([*(places.get(text, ABSENT) for text in texts), ABSENT])[positions])

    def decode(self, values: Shaped[np.ndarray, " T"]) -> Shaped[np.ndarray, " T"]:
        """Predictions, or encoded targets, in the column's own units; names of classes."""
        if self.classes:
            return np.asarray(self.classes, dtype=object)[values]
        return values.astype(np.float64) * self.scale + self.mean


@dataclass(frozen=True)
class TableColumns:
    """How rows of a table become rows of float32: everything that was learned of the columns on the training rows.

    A row of features holds the numbers, then for each column with missing numbers whether it is missing, then the codes
    of the categories. `to_values` gives plain values for JSON, and `from_values` the columns again; a run keeps them
    in the header of its model, for rows that come later.

    Arguments:
        numbers: the columns of numbers.
        categories: the columns of categories.
        targets: the columns to predict.
        where: name of the table, for error messages.
        domain: name of the column whose values are the domains; None where there is none.

    Example:
        >>> from moebius.lab.data.tables.hold_out import HoldOut
        >>> frame = pd.DataFrame({"size": [1.0, 3.0, None], "color": ["red", None, "blue"]})
        >>> targets = pd.DataFrame({"kind": ["a", "b", "a"]})
        >>> table = Table(frame, ("color",), targets, ("classes",), HoldOut(), 0.2, "example")
        >>> columns = TableColumns.fit(table)
        >>> columns.features
        ('size', 'size is missing', 'color')
        >>> columns.encode(frame)[:, 1:].tolist()
        [[0.0, 2.0], [0.0, 0.0], [1.0, 1.0]]
        >>> columns == TableColumns.from_values(columns.to_values())
        True
    """

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    targets: tuple[TargetColumn, ...]
    where: str
    domain: str | None = None

    @classmethod
    def fit(cls, table: Table, train: np.ndarray | None = None) -> "TableColumns":
        """Learn the columns of a table on its training rows; the classes of targets, on all rows.

        Arguments:
            table: all rows.
            train: positions of the training rows; None = all.

        Raises:
            DataError: a column is missing in all of these rows.
        """
        numbers, categories, where = [], [], table.where
        train = np.arange(len(table)) if train is None else train
        targets = tuple(
            TargetColumn.fit(table.targets[name], target_type, train, where)
            for name, target_type in zip(table.targets, table.target_types, strict=True)
        )
        table = table.take(train)
        for name, column in table.features.items():
            if column.isna().all():
                rule = f"column {name!r} holds no value in the {len(table)} training rows"
                raise DataError(f"{table.where}: {rule}", f"drop: [{name}]")
            if name in table.categories:
                categories.append(CategoryColumn(name, tuple(read_categories(column, table.where)[1])))
            else:
                numbers.append(_fit_numbers(name, read_numbers(column, table.where)))
        domain = None if table.domain is None else str(table.domain.name)
        return cls(tuple(numbers), tuple(categories), targets, where, domain)

    def check_names(self) -> None:
        """Refuse names of columns, categories and classes that figures, pages and terminals cannot show.

        Raises:
            DataError: a name holds a control character or half of a character; or one but that of a category is empty.
        """
        for column in (*self.numbers, *self.categories, *self.targets):
            check_names("column", [column.name], self.where)
        for column in self.categories:
            check_names(f"category of column {column.name!r}", column.categories, self.where, allows_empty=True)
        for target in self.targets:
            check_names("class", target.classes, self.where)

    @property
    def cardinalities(self) -> list[int]:
        """The number of codes of each category column; code 0 is for missing and unknown categories."""
        return [len(column.categories) + 1 for column in self.categories]

    @property
    def features(self) -> tuple[str, ...]:
        """A name for each number of an encoded row."""
        indicators = (f"{column.name} is missing" for column in self.numbers if column.has_missing)
        return (*(column.name for column in self.numbers), *indicators, *(column.name for column in self.categories))

    def encode(self, features: pd.DataFrame) -> Float[Tensor, "T features"]:
        """The rows as numbers.

        Arguments:
            features: columns with the names of these columns; further ones are not read.

        Raises:
            DataError: a column is missing, or holds text in the place of a number.
        """
        values, indicators, codes = [], [], []
        cells: Any = features  # pyright takes a column for one of several types
        for column in (*self.numbers, *self.categories):
            if column.name not in features:
                raise DataError(f"{self.where}: no column is called {column.name!r}", f"add a column {column.name!r}")
        for column in self.numbers:
            numbers = read_numbers(cells[column.name], self.where)
            is_missing = np.isnan(numbers)
            values.append((np.where(is_missing, column.median, numbers) - column.mean) / column.scale)
            if column.has_missing:
                indicators.append(is_missing)
        for column in self.categories:
            positions, texts = read_categories(cells[column.name], self.where)
            code_of = {text: code for code, text in enumerate(column.categories, 1)}
            codes.append(np.array([*(code_of.get(text, 0) for text in texts), 0])[positions])
        rows = np.stack([*values, *indicators, *codes], axis=1)
        return torch.from_numpy(rows.astype(np.float32))

    def to_values(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return {
            "numbers": [asdict(column) for column in self.numbers],
            "categories": [{"name": column.name, "categories": [*column.categories]} for column in self.categories],
            "targets": [{**asdict(column), "classes": [*column.classes]} for column in self.targets],
            "where": self.where,
            "domain": self.domain,
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "TableColumns":
        """The columns of which `to_values` gave these values."""
        numbers = tuple(NumberColumn(**column) for column in values["numbers"])
        categories = tuple(
            CategoryColumn(column["name"], tuple(column["categories"])) for column in values["categories"]
        )
        targets = tuple(TargetColumn(**{**column, "classes": tuple(column["classes"])}) for column in values["targets"])
        return cls(numbers, categories, targets, values["where"], values["domain"])

    def describe(self) -> str:
        """The types of the columns in words.

        Example:
            >>> column = CategoryColumn("color", ("blue", "red"))
            >>> TableColumns((), (column,), (TargetColumn("kind", ("a", "b")),), "example").describe()
            '0 numbers; 1 category column (color 2); target kind, 2 classes'
        """
        missing = [column.name for column in self.numbers if column.has_missing]
        text = _count(len(self.numbers), "number") + (f" (some missing: {', '.join(missing)})" if missing else "")
        sizes = ", ".join(f"{column.name} {len(column.categories)}" for column in self.categories)
        text += f"; {_count(len(self.categories), 'category column')}" + (f" ({sizes})" if sizes else "")
        kinds = [f"{len(each.classes)} classes" if each.classes else "numbers" for each in self.targets]
        targets = "; ".join(f"{each.name}, {kind}" for each, kind in zip(self.targets, kinds, strict=True))
        return f"{text}; target{'s' * (len(kinds) > 1)} {targets}"


def _fit_numbers(name: str, numbers: Float[np.ndarray, "T"]) -> NumberColumn:
    is_missing = np.isnan(numbers)
    median = float(np.median(numbers[~is_missing]))
    filled = np.where(is_missing, median, numbers)
    mean, scale = float(filled.mean()), float(filled.std())
    # The deviation of equal numbers is not 0 where their mean is rounded.
    is_constant = scale <= 1e-12 * max(abs(mean), float(np.abs(filled).max()))
    return NumberColumn(name, median, mean, 1.0 if is_constant else scale, bool(is_missing.any()))


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
