import numpy as np
import pandas as pd
import pytest

from moebius.kit.errors import DataError
from moebius.lab.data.tables.column_types import (
    find_categories,
    find_target_type,
    read_categories,
    read_numbers,
)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "classes"),
        ([True, False], "classes"),
        (pd.Categorical([1.5, 2.5]), "classes"),
        ([0, 1, 1], "classes"),
        ([0.0, 1.0], "classes"),
        (range(20), "classes"),
        (range(21), "numbers"),
        ([0.5, 1.0], "numbers"),
    ],
)
def test_values_decide_what_a_target_is(values, kind):
    assert find_target_type(pd.Series(values)) == kind


def test_text_truth_values_and_categories_are_categories():
    frame = pd.DataFrame(
        {
            "number": [1.0, 2.0, None, 4.0],
            "text": ["a", "b", "a", None],
            "truth": [True, False, True, True],
            "typed": pd.Categorical([1, 2, 1, 1]),
            "code": [1, 2, 1, 1],
            "digits": ["1", "2", "3", None],
        }
    )
    assert find_categories(frame, ["code"], ["digits"], "") == ("text", "truth", "typed", "code")


def test_categories_are_in_order_and_missing_ones_have_no_place():
    positions, names = read_categories(pd.Series(["b", None, "a", "b"]), "")
    assert (positions.tolist(), names) == ([1, -1, 0, 1], ["a", "b"])
    assert read_categories(pd.Series([10.0, None, 9.0, 2.5]), "")[1] == ["2.5", "9", "10"]
    assert read_categories(pd.Series([True, False]), "")[1] == ["False", "True"]
    # A column of whole numbers has the same categories where some are missing, and are read as decimals.
    assert read_categories(pd.Series([3, 12]), "")[1] == read_categories(pd.Series([12.0, None, 3.0]), "")[1]


@pytest.mark.parametrize(
    ("column", "rule", "fix"),
    [
        ([None, None, None], "column 'x' holds no value in any row", "drop: [x]"),
        (["a", "b", "c"], "column 'x' holds 3 different values in 3 rows", "drop: [x]"),
        ([1.0, np.inf, 2.0], "column 'x' holds 'inf' in row 1, which is infinite", "drop: [x]"),
        (pd.to_datetime(["2024-01-01"] * 3), "column 'x' holds dates", "time: x"),
        ([[1], [1], [2]], "column 'x' holds values of several parts", "drop: [x]"),
    ],
)
def test_a_column_that_is_neither_is_refused(column, rule, fix):
    with pytest.raises(DataError) as caught:
        find_categories(pd.DataFrame({"x": column}), (), (), "rows.csv")
    assert caught.value.message.startswith(f"rows.csv: {rule}")
    assert caught.value.fix.startswith(fix)


def test_text_that_is_no_number_is_refused_where_numbers_are_declared():
    frame = pd.DataFrame({"age": ["31", None, "old", "7"]})
    with pytest.raises(DataError) as caught:
        find_categories(frame, (), ["age"], "rows.csv")
    assert caught.value.message == "rows.csv: column 'age' holds 'old' in row 2, which is no number"
    assert caught.value.fix == "categories: [age]    # or correct it in a copy of the file"


def test_declared_categories_may_not_be_identifiers_either():
    with pytest.raises(DataError, match="holds 9 different values in 9 rows") as caught:
        find_categories(pd.DataFrame({"id": range(9)}), ["id"], (), "rows.csv")
    assert caught.value.fix == "drop: [id]"


def test_missing_numbers_stay_missing():
    assert read_numbers(pd.Series(["1.5", None, "2"]), "").tolist()[::2] == [1.5, 2.0]
    assert np.isnan(read_numbers(pd.Series(["1.5", None, "2"]), "")[1])
    assert read_numbers(pd.Series([1, None], dtype="Int64"), "")[0] == 1
