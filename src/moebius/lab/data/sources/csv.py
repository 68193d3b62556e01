"""Tables in text files of separated values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.lab.data.raw import check_text
from moebius.lab.data.tables.table import TableFile, TableOptions


class CSV(TableFile):
    """A table in a text file whose first line names the columns: numbers, categories, and a target to predict.

    Numbers are standardised by the training rows. A missing number becomes their median, and a further feature tells
    where it was missing. Text, truth values and the columns of `categories` are categories: each becomes a code, and
    missing or unknown ones the code 0. A table is the only set of its data.

    Arguments:
        path: the file; a relative path is searched in the current folder, then in the data folder.
        target: name of the column to predict, or a list of several names.
        columns: names of the columns that the model sees; null = all but targets, group, time and domain.
        drop: names of columns that the model does not see.
        categories: names of columns whose numbers are categories.
        numbers: names of columns whose text has to be numbers; a value that is none is refused with its row.
        target_type: classes or numbers; null = classes for text, truth values, and at most 20 different whole numbers.
            For several targets a mapping from some of their names.
        test: share of the rows to test on, the same share of each class, strictly between 0 and 1.
        group: name of a column: rows with one value are all trained on or all tested on. The model does not see it.
        time: name of a column of numbers or dates: the latest rows are tested on. The model does not see it.
        seed: of the random choice of test rows, at least 0.
        domain: name of a column: rows with one value are a domain, as a set of images is, and the gate `domain` routes
            by it. The model sees it only where `columns` names it.
        separator: text between two values.
        missing: texts that stand for a missing value, beside an empty one, NA, NaN, null and such.
        package: name of an installed package that ships the file, in whose folder `path` is; null = none.
        name: short name of the table; null = the name of the file.

    Raises:
        ArgumentError: an empty path or target, a share that does not lie between 0 and 1, or options that exclude each
            other.

    Example:
        >>> CSV("tables/patients.csv", target="diagnosis").name
        'patients'

    Reference: ours; the format is RFC 4180.
    """

    def __init__(
        self,
        path: str,
        target: str | Sequence[str],
        columns: Sequence[str] | None = None,
        drop: Sequence[str] = (),
        categories: Sequence[str] = (),
        numbers: Sequence[str] = (),
        target_type: str | Mapping[str, str] | None = None,
        test: float = 0.2,
        group: str | None = None,
        time: str | None = None,
        seed: int = 0,
        domain: str | None = None,
        separator: str = ",",
        missing: Sequence[str] = (),
        package: str | None = None,
        name: str | None = None,
    ):
        self.path, self.package = check_text("path", path), package
        names = (None if columns is None else tuple(columns), tuple(drop), tuple(categories), tuple(numbers))
        targets = target if isinstance(target, str) else tuple(target)
        self.options = TableOptions(targets, *names, target_type, test, group, time, seed, domain)
        if len(separator) != 1:
            raise ArgumentError("separator", "needs one character", separator, 'separator: ";"')
        self.separator, self.missing = separator, tuple(missing)
        self.name, self.form = name or Path(path).name.split(".")[0], ("csv", separator, tuple(missing))

    def read_frame(self, path: Path) -> Any:
        """The columns of the file."""
        from moebius.lab.data.tables.read_file import read_csv

        return read_csv(path, self.separator, self.missing)
