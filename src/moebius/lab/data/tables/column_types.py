"""What the columns of a table hold, numbers or categories, and whether a target is classes or numbers."""

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from moebius.kit.errors import DataError
from moebius.kit.names import shorten

# A target of whole numbers with more different values than this is a number.
MOST_CLASSES = 20


def find_target_type(target: pd.Series) -> Literal["classes", "numbers"]:
    """Whether a target without missing values is classes or numbers; a recipe's `target_type` overrides it.

    Text, truth values and pandas' categories are classes. Whole numbers are classes where there are at most 20
    different ones, as labels are; other numbers are numbers.

    Example:
        >>> find_target_type(pd.Series([0, 1, 1])), find_target_type(pd.Series([0.5, 1.0, 2.0]))
        ('classes', 'numbers')
    """
    if not is_numeric(target):
        return "classes"
    values = target.unique()
    is_whole = bool((values == np.floor(values)).all())
    return "classes" if is_whole and len(values) <= MOST_CLASSES else "numbers"


def find_categories(
    features: pd.DataFrame, categories: Collection[str], numbers: Collection[str], where: str
) -> tuple[str, ...]:
    """Names of the columns that hold categories: those of `categories`, and text, truth values and pandas' categories.

    Arguments:
        features: the columns that the model sees.
        categories, numbers: names of columns that hold categories, or numbers, whatever their values look like.
        where: name of the table, for error messages.

    Raises:
        DataError: a column holds nothing, text that is no number where a number is needed, dates, or more categories
            than half the rows.
    """
    names = []
    for name, column in features.items():
        name = str(name)
        if column.isna().all():
            raise DataError(f"{where}: column {name!r} holds no value in any row", f"drop: [{name}]")
        if name in numbers or (name not in categories and is_numeric(column)):
            read_numbers(column, where)
            continue
        if isinstance(column.dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_any_dtype(column):
            fix = f"time: {name}    # or drop: [{name}]"
            raise DataError(f"{where}: column {name!r} holds dates, which are neither numbers nor categories", fix)
        count = len(read_categories(column, where)[1])
        if count > len(column) / 2:
            rule = f"holds {count} different values in {len(column)} rows, as a column of names or identifiers does"
            fix = f"drop: [{name}]" if name in categories else f"drop: [{name}]    # or numbers: [{name}]"
            raise DataError(f"{where}: column {name!r} {rule}", fix)
        names.append(name)
    return tuple(names)


def is_numeric(column: pd.Series) -> bool:
    """Whether a column has a numeric type; truth values have none."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def read_numbers(column: pd.Series, where: str) -> Float[np.ndarray, "T"]:
    """The numbers of a column in float64, NaN where they are missing.

    Raises:
        DataError: a value is no number, or infinite.
    """
    converted: Any = pd.to_numeric(column, errors="coerce")
    numbers = np.asarray(converted.astype("float64"))
    is_text = np.isnan(numbers) & np.asarray(column.notna())
    correction = "correct it in a copy of the file"
    for is_wrong, rule, fix in (
        (is_text, "is no number", f"categories: [{column.name}]    # or {correction}"),
        (np.isinf(numbers), "is infinite", f"drop: [{column.name}]    # or {correction}"),
    ):
        if is_wrong.any():
            row = int(is_wrong.argmax())
            rule = f"column {column.name!r} holds {shorten(str(column.iloc[row]))!r} in row {row}, which {rule}"
            raise DataError(f"{where}: {rule}", fix)
    return numbers


def read_categories(column: pd.Series, where: str) -> tuple[Int[np.ndarray, "T"], list[str]]:
    """The categories of a column as text, in order, and each row's position among them; −1 where it is missing.

    Numbers are in the order of their values, other categories in that of their text; a whole number has no decimals.

    Example:
        >>> codes, categories = read_categories(pd.Series([10.0, 9.0, None, 10.0]), "")
        >>> codes.tolist(), categories
        ([1, 0, -1, 1], ['9', '10'])
    """
    try:
        codes, values = pd.factorize(column)
    except TypeError as error:
        raise DataError(
            f"{where}: column {column.name!r} holds values of several parts ({error})", f"drop: [{column.name}]"
        ) from error
    texts = [_category_text(value) for value in values]
    numeric = is_numeric(pd.Series(values))
    names = sorted(set(texts), key=lambda text: (float(text), text)) if numeric else sorted(set(texts))
    place = {name: position for position, name in enumerate(names)}
    positions = np.array([*(place[text] for text in texts), -1], dtype=np.int64)
    return positions[codes], names


def _category_text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
