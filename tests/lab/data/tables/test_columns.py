import json

import numpy as np
import pandas as pd
import pytest
import torch

from moebius.kit.errors import DataError
from moebius.lab.data.tables.columns import TableColumns
from moebius.lab.data.tables.make_table import make_table
from moebius.lab.data.tables.table import TableOptions

FRAME = pd.DataFrame(
    {
        "size": [1.0, 2.0, None, 5.0, 2.0, 9.0],
        "color": ["red", "blue", None, "red", "blue", "red"],
        "weight": [10, 20, 30, 40, 50, 60],
        "is_new": [True, False, True, True, False, False],
        "kind": ["a", "b", "a", "b", "a", "b"],
    }
)
TABLE = make_table(FRAME, TableOptions("kind"), "things")


def test_numbers_are_standardised_and_missing_ones_are_the_median():
    columns = TableColumns.fit(TABLE)
    rows = columns.encode(FRAME)
    assert columns.features == ("size", "weight", "size is missing", "color", "is_new")
    assert rows.dtype == torch.float32
    filled = np.array([1, 2, 2, 5, 2, 9])
    torch.testing.assert_close(rows[:, 0], torch.tensor((filled - filled.mean()) / filled.std()).float())
    torch.testing.assert_close(rows[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[:, :2].std(0, correction=0), torch.ones(2))
    assert rows[:, 2].tolist() == [0, 0, 1, 0, 0, 0]


def test_categories_are_codes_and_missing_ones_0():
    columns = TableColumns.fit(TABLE)
    assert columns.encode(FRAME)[:, 3].tolist() == [2, 1, 0, 2, 1, 2]
    assert columns.encode(FRAME)[:, 4].tolist() == [2, 1, 2, 2, 1, 1]
    assert columns.cardinalities == [3, 3]


def test_other_rows_are_encoded_by_the_training_rows():
    columns = TableColumns.fit(TABLE)
    later = pd.DataFrame({"size": [None, 2.0], "color": ["green", "red"], "weight": [None, 10], "is_new": [None, True]})
    rows = columns.encode(later)
    size, weight = columns.numbers
    assert rows[:, 0].tolist() == [pytest.approx((2 - size.mean) / size.scale)] * 2
    assert rows[0, 1].item() == pytest.approx((35 - weight.mean) / weight.scale)
    # Weights were never missing while it was trained: no feature tells that one is.
    assert rows[:, 2:].tolist() == [[1, 0, 0], [0, 2, 2]]
    assert columns.encode(later[["is_new", "weight", "color", "size"]]).equal(rows)


def test_json_keeps_them():
    columns = TableColumns.fit(TABLE)
    again = TableColumns.from_values(json.loads(json.dumps(columns.to_values())))
    assert again == columns
    assert again.encode(FRAME).equal(columns.encode(FRAME))


def test_a_constant_column_becomes_0():
    frame = pd.DataFrame({"x": [0.1] * 10, "y": range(10), "kind": [0, 1] * 5})
    columns = TableColumns.fit(make_table(frame, TableOptions("kind"), "things"))
    assert columns.numbers[0].scale == 1
    assert columns.encode(frame)[:, 0].abs().max() < 1e-6


def test_types_are_shown():
    text = TableColumns.fit(TABLE).describe()
    assert text == ("2 numbers (some missing: size); 2 category columns (color 2, is_new 2); target kind, 2 classes")


def test_a_target_of_classes_becomes_positions_and_one_of_numbers_standardised_float32():
    (kind,) = TableColumns.fit(TABLE).targets
    assert kind.encode(FRAME["kind"], "").tolist() == [0, 1, 0, 1, 0, 1]
    assert kind.encode(pd.Series(["b", None, "c"], name="kind"), "").tolist() == [1, -100, -100]
    assert (kind.names, [*kind.decode(np.array([1, 0]))]) == (("a", "b"), ["b", "a"])
    (weight,) = TableColumns.fit(make_table(FRAME, TableOptions("weight", target_type="numbers"), "things")).targets
    encoded = weight.encode(FRAME["weight"], "")
    assert (encoded.dtype, weight.names) == (torch.float32, ("weight",))
    assert encoded.mean().abs() < 1e-6
    assert encoded.std(correction=0).isclose(torch.tensor(1.0))
    np.testing.assert_allclose(weight.decode(encoded.numpy()), FRAME["weight"], rtol=1e-6)
    assert weight.encode(pd.Series([None, 10.0], name="weight"), "").isnan().tolist() == [True, False]
    (weight,) = TableColumns.fit(make_table(FRAME, TableOptions("weight"), "things")).targets
    assert weight.encode(FRAME["weight"], "").tolist() == [0, 1, 2, 3, 4, 5]
    assert weight.classes[:2] == ("10", "20")


def test_numbers_to_predict_are_standardised_by_the_training_rows_alone():
    table = make_table(FRAME, TableOptions("weight", target_type="numbers"), "things")
    (weight,) = TableColumns.fit(table, np.array([0, 2])).targets
    assert (weight.mean, weight.scale) == (20, 10)


def test_rows_that_lack_a_column_are_refused():
    with pytest.raises(DataError, match="things: no column is called 'color'") as caught:
        TableColumns.fit(TABLE).encode(FRAME.drop(columns="color"))
    assert caught.value.fix


def test_a_column_without_a_value_in_the_training_rows_is_refused():
    with pytest.raises(DataError, match="column 'size' holds no value in the 1 training rows") as caught:
        TableColumns.fit(TABLE.take(np.array([2])))
    assert caught.value.fix == "drop: [size]"
