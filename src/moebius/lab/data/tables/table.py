"""The contract of sources that are tables: `TableSource.open` finds the file, its `read` gives a `Table`."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import did_you_mean
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
        targets: the columns to predict, as a pandas DataFrame; a single one has no missing values.
        target_types: of each target, "classes" or "numbers".
        hold_out: how rows to test on, and rows to validate with, are held out.
        test: share of the rows to test on.
        where: name of the table, for error messages.
        domain: the column whose values are the domains, as a pandas Series; None = all rows are of one domain.
    """

    features: Any
    categories: tuple[str, ...]
    targets: Any
    target_types: tuple[str, ...]
    hold_out: "HoldOut"
    test: float
    where: str
    domain: Any = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: np.ndarray) -> "Table":
        """The rows at these positions, in this order."""
        features, targets = self.features.iloc[rows], self.targets.iloc[rows]
        domain = None if self.domain is None else self.domain.iloc[rows]
        hold_out = self.hold_out.take(rows)
        return replace(self, features=features, targets=targets, hold_out=hold_out, domain=domain)


class TableSource(Source):
    """The contract of a source that is a table: `open` gives a `Raw` whose `read` gives a `Table`.

    A recipe has one such set, and no other set beside it.

    Example:
        >>> from moebius.lab.data.sources.sklearn import Sklearn
        >>> table = Sklearn("iris").open().read()
        >>> len(table), table.target_types
        (150, ('classes',))
    """

    @property
    def domain_count(self) -> int | None:
        """The number of domains, where it is known before the table is read."""
        return 1

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
        package: name of an installed package, in whose folder the file is; None = in none.
    """

    path: str
    options: "TableOptions"
    form: tuple[Any, ...]
    package: str | None = None

    @property
    def domain_count(self) -> int | None:
        """The number of domains: 1, or unknown where a column tells them."""
        return 1 if self.options.domain is None else None

    @abstractmethod
    def read_frame(self, path: Path) -> Any:
        """The columns of the file, as a pandas DataFrame."""

    def open(self, data_dir: Path | None = None) -> Raw:
        """Find the file, in the current folder, in `data_dir` or in a package."""
        from moebius.lab.data.tables.read_file import find_file

        path, (kind, *reading) = find_file(self.path, data_dir, self.package), self.form

        def read() -> Table:
            from moebius.lab.data.tables.make_table import make_table

            return make_table(self.read_frame(path), self.options, str(path))

        return Raw(hash_content([path], kind, self.options, *reading), read)


@dataclass(frozen=True)
class TableOptions:
    """What a recipe says about a table's columns and rows.

    Arguments:
        target: name of the column to predict, or names of several.
        columns: names of the columns that the model sees; None = all but those that have another use.
        drop: names of columns that the model does not see.
        categories: names of columns whose numbers are categories.
        numbers: names of columns whose text has to be numbers.
        target_type: "classes" or "numbers", or one of them for some of the targets by name; None = decided by the
            values, see `find_target_type`.
        test: share of the rows to test on, strictly between 0 and 1.
        group: name of a column: rows with the same value are all trained on or all tested on.
        time: name of a column: the latest rows are tested on.
        seed: of the random choice of test rows, at least 0.
        domain: name of a column whose values are the domains of the rows.

    Raises:
        ArgumentError: a value out of its range, or two options that exclude each other.
    """

    target: str | tuple[str, ...]
    columns: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    target_type: str | Mapping[str, str] | None = None
    test: float = 0.2
    group: str | None = None
    time: str | None = None
    seed: int = 0
    domain: str | None = None

    def __post_init__(self):
        for name in self.targets or ("",):
            check_text("target", name)
        if len(set(self.targets)) < len(self.targets):
            raise ArgumentError("target", "needs each column once", list(self.targets), f"target: {self.targets[0]}")
        check_share(self.test, "test")
        for name in self.target_types:
            if name not in self.targets:
                fix = did_you_mean(name, self.targets)
                raise ArgumentError("target_type", "needs names of targets", name, f"target_type: {{{fix}: numbers}}")
        for kind in self.target_types.values():
            if kind not in TARGET_TYPES:
                rule = f"needs one of {', '.join(TARGET_TYPES)}, or null to decide by the values"
                raise ArgumentError("target_type", rule, kind, "target_type: null")
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
        for name in ("group", "time", "domain"):
            if getattr(self, name) in self.targets:
                rule = "must not be a target, which nobody knows when a model is used"
                raise ArgumentError(name, rule, getattr(self, name), f"{name}: null")
        if isinstance(self.seed, bool) or self.seed < 0:
            raise ArgumentError("seed", "must be at least 0", self.seed, "seed: 0")

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all columns to predict."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def target_types(self) -> Mapping[str, str]:
        """Target → its type, where the recipe tells it."""
        if self.target_type is None or isinstance(self.target_type, Mapping):
            return self.target_type or {}
        return dict.fromkeys(self.targets, self.target_type)
