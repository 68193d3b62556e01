"""The contract of sources that are tables: `TableSource.open` finds the file, its `read` gives a `Table`."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import Raw, Source, check_text, hash_content
from moebius.lab.data.stratify import check_share

if TYPE_CHECKING:
    from moebius.lab.data.tables.hold_out import HoldOut

TARGET_TYPES = ("classes", "numbers")


@dataclass(frozen=True)
class Table:
    """A table that is read, before anything is learned from its rows.

    Arguments:
        features: the columns that the model sees, as a pandas DataFrame.
        categories: names of the columns of `features` that hold categories; the others hold numbers.
        target: the column to predict, as a pandas Series without missing values.
        target_type: "classes" or "numbers".
        hold_out: how rows to test on, and rows to validate with, are held out.
        test: share of the rows to test on.
        where: name of the table, for error messages.
    """

    features: Any
    categories: tuple[str, ...]
    target: Any
    target_type: str
    hold_out: "HoldOut"
    test: float
    where: str

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: np.ndarray) -> "Table":
        """The rows at these positions, in this order."""
        features, target = self.features.iloc[rows], self.target.iloc[rows]
        return replace(self, features=features, target=target, hold_out=self.hold_out.take(rows))


class TableSource(Source):
    """The contract of a source that is a table: `open` gives a `Raw` whose `read` gives a `Table`.

    A recipe has one such set, and no other set beside it.

    Example:
        >>> from moebius.lab.data.sources.sklearn import Sklearn
        >>> table = Sklearn("iris").open().read()
        >>> len(table), table.target_type
        (150, 'classes')
    """

    @abstractmethod
    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the table's file, without reading it.

        Arguments:
            data_dir: folder with local files; None = none.

        Raises:
            DataError: the file is missing.
        """


class TableFile(TableSource):
    """A table in a file, which `read_frame` reads.

    Attributes:
        path: the file, absolute, or relative to the current folder or the data folder.
        options: what the recipe says about columns and rows.
        form: the kind of file, and what its content is read by: a part of the fingerprint.
    """

    path: str
    options: "TableOptions"
    form: tuple[Any, ...]

    @abstractmethod
    def read_frame(self, path: Path) -> Any:
        """The columns of the file, as a pandas DataFrame."""

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the file, in the current folder or in `data_dir`."""
        from moebius.lab.data.tables.read_file import find_file

        path, (kind, *reading) = find_file(self.path, data_dir), self.form

        def read() -> Table:
            from moebius.lab.data.tables.make_table import make_table

            return make_table(self.read_frame(path), self.options, str(path))

        return Raw(hash_content([path], kind, self.options, *reading), read)


@dataclass(frozen=True)
class TableOptions:
    """What a recipe says about a table's columns and rows.

    Arguments:
        target: name of the column to predict.
        columns: names of the columns that the model sees; None = all but those that have another use.
        drop: names of columns that the model does not see.
        categories: names of columns whose numbers are categories.
        numbers: names of columns whose text has to be numbers.
        target_type: "classes" or "numbers"; None = decided by the values, see `find_target_type`.
        test: share of the rows to test on, strictly between 0 and 1.
        group: name of a column: rows with the same value are all trained on or all tested on.
        time: name of a column: the latest rows are tested on.
        seed: of the random choice of test rows, at least 0.

    Raises:
        ArgumentError: a value out of its range, or two options that exclude each other.
    """

    target: str
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    target_type: str | None = None
    test: float = 0.2
    group: str | None = None
    time: str | None = None
    seed: int = 0

    def __post_init__(self):
        check_text("target", self.target)
        check_share(self.test, "test")
        if self.target_type is not None and self.target_type not in TARGET_TYPES:
            rule = f"needs one of {', '.join(TARGET_TYPES)}, or null to decide by the values"
            raise ArgumentError("target_type", rule, self.target_type, "target_type: null")
        if self.columns is not None and self.drop:
            rule = "cannot stand beside columns, which names all columns to keep"
            raise ArgumentError("drop", rule, list(self.drop), "remove drop, or remove columns")
        if self.group is not None and self.time is not None:
            rule = "cannot stand beside group, because both choose the rows to test on"
            raise ArgumentError("time", rule, self.time, "remove time, or remove group")
        both = set(self.categories) & set(self.numbers)
        if both:
            rule = "must not name a column that categories names"
            raise ArgumentError("numbers", rule, sorted(both), "name each column once")
        for name in ("group", "time"):
            if getattr(self, name) == self.target:
                rule = "must not be the target, which nobody knows when a model is used"
                raise ArgumentError(name, rule, self.target, f"{name}: null")
        if isinstance(self.seed, bool) or self.seed < 0:
            raise ArgumentError("seed", "must be at least 0", self.seed, "seed: 0")
