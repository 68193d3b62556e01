"""Files of tables: finding them, and reading them as a pandas DataFrame."""

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moebius.kit.errors import DataError
from moebius.kit.files import is_plain_file

# What Arrow raises for a file that is damaged, or that holds text that is no UTF-8.
UNREADABLE = (OSError, ValueError, pa.ArrowException)


def find_file(path: str, data_dir: Path | None, package: str | None = None) -> Path:
    """The file at `path`; a relative path is searched in the current folder, then in the data folder.

    Arguments:
        path: of the file.
        data_dir: the data folder; None = none.
        package: name of an installed package, in whose folder the file is; None = in none.

    Raises:
        DataError: there is no such file, or no such package; the message names the places.
    """
    if package is not None:
        # The package is found and not imported: it may take long, and have needs of its own.
        spec = importlib.util.find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise DataError(
                f"{path}: the package {package!r}, which ships it, is not installed", f"pip install {package}"
            )
        file = Path(next(iter(spec.submodule_search_locations)), path)
        if not is_plain_file(file):
            raise DataError(f"{path}: the package {package!r} ships no such file ({file})", "path: FILE OF THE PACKAGE")
        return file
    # Where the path is absolute, joining it to data_dir gives the path itself.
    candidates = [Path(path).expanduser()]
    candidates += [data_dir / candidates[0]] if data_dir is not None else []
    for file in candidates:
        if is_plain_file(file):
            return file
    places = " nor ".join(str(file.absolute()) for file in dict.fromkeys(candidates))
    raise DataError(f"{path}: there is no such file ({places})", "path: FILE OF THE TABLE")


def read_csv(path: Path, separator: str, missing: Sequence[str]) -> pd.DataFrame:
    """The table in a text file whose first line names the columns.

    Arguments:
        path: the file, in UTF-8.
        separator: text between two values.
        missing: texts that stand for a missing value, beside an empty one and pandas' usual ones.

    Raises:
        DataError: the file is empty, no text in UTF-8, or a line has too many values, or two columns have one name.
    """
    options: dict[str, Any] = {"sep": separator, "encoding": "utf-8", "engine": "c"}
    try:
        # pandas gives repeated names a number, so that the names have to be read by themselves.
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        check_column_names([str(name) for name in names.iloc[0]], path)
        frame = pd.read_csv(path, na_values=list(missing), index_col=False, low_memory=False, **options)
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the file is empty", "path: A FILE WITH ROWS") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error})", "save a copy of the file as UTF-8") from error
    except (pd.errors.ParserError, OSError) as error:
        fix = "name the file's separator (separator: ';'), or correct the line in a copy of the file"
        raise DataError(f"{path}: cannot be read: {str(error).strip()}", fix) from error
    return check_rows(frame, path)


def read_parquet_table(path: Path) -> pd.DataFrame:
    """The table in a parquet file.

    Raises:
        DataError: the file is no complete parquet file, holds no rows, or two of its columns have one name.
    """
    try:
        check_column_names(pq.read_schema(path).names, path)
        table = pq.read_table(path)
        frame = table.to_pandas()
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated, or no parquet file: {error}", "write the file again") from error
    # An index that pandas has kept is no column of its own; where it has a name it is one.
    frame = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    return check_rows(frame.reset_index(drop=True), path)


def check_rows(frame: pd.DataFrame, where: Path | str) -> pd.DataFrame:
    """The table, if it has rows."""
    if not len(frame):
        raise DataError(f"{where}: the table has no rows", "path: A FILE WITH ROWS")
    return frame.rename(columns=str)


def check_column_names(names: Sequence[str], path: Path) -> None:
    """Refuse a table of which two columns have one name.

    Raises:
        DataError: they have.
    """
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        fix = f"rename one of the columns {name!r} in a copy of the file"
        raise DataError(f"{path}: {count} columns are called {name!r}", fix)
