import numpy as np
import pandas as pd
import pytest

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data.tables.make_table import make_table
from moebius.lab.data.tables.table import TableOptions

FRAME = pd.DataFrame(
    {
        "a": [1.0, 2.0, 3.0, 4.0],
        "b": ["x", "y", "x", "y"],
        "customer": [7, 7, 8, 8],
        "day": ["2024-03-01", "2023-01-05", "2024-01-01", "2023-12-31"],
        "y": [0, 1, 0, 1],
    }
)


def test_columns_with_another_use_are_no_features():
    table = make_table(FRAME, TableOptions("y", group="customer", drop=("day",)), "rows")
    assert (list(table.features), table.categories, table.target_types) == (["a", "b"], ("b",), ("classes",))
    assert table.hold_out.groups.tolist() == [0, 0, 1, 1]
    assert list(make_table(FRAME, TableOptions("y", columns=("a", "y", "customer")), "rows").features) == [
        "a",
        "customer",
    ]


def test_dates_are_times():
    times = make_table(FRAME, TableOptions("y", time="day", drop=("customer",)), "rows").hold_out.times
    assert np.argsort(times).tolist() == [1, 3, 2, 0]
    typed = FRAME.assign(day=pd.to_datetime(FRAME["day"]))
    again = make_table(typed, TableOptions("y", time="day", drop=("customer",)), "rows").hold_out.times
    assert again.tolist() == times.tolist()
    numbers = make_table(FRAME, TableOptions("y", time="a", columns=("b",)), "rows").hold_out.times
    assert numbers.tolist() == [1, 2, 3, 4]


def test_a_recipe_says_what_the_target_is():
    options = {"columns": ("a", "b")}
    assert make_table(FRAME, TableOptions("y", **options, target_type="numbers"), "").target_types == ("numbers",)
    assert make_table(FRAME, TableOptions("a", columns=("b",), target_type="classes"), "").target_types == ("classes",)


def refuse(frame, rule, fix, **options):
    with pytest.raises(DataError) as caught:
        make_table(frame, TableOptions(**{"target": "y", "columns": ("a", "b"), **options}), "rows.csv")
    assert caught.value.message.startswith(f"rows.csv: {rule}")
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("options", "rule", "fix"),
    [
        ({"target": "yy"}, "target names 'yy', and no column is called so", "target: did you mean y?"),
        ({"columns": ("A",)}, "columns names 'A'", "columns: "),
        ({"columns": None, "drop": ("bb",)}, "drop names 'bb'", "drop: did you mean b?"),
        ({"categories": ("c",)}, "categories names 'c'", "categories: "),
        ({"numbers": ("c",)}, "numbers names 'c'", "numbers: "),
        ({"group": "costumer"}, "group names 'costumer'", "did you mean customer?"),
        ({"time": "days"}, "time names 'days'", "did you mean day?"),
        ({"time": "b"}, "column 'b' holds neither numbers nor dates", "2024-12-31"),
        ({"columns": ("y",)}, "no column is left for the model to see", "columns: [a, b, customer, day]"),
        ({"target": "b", "columns": ("a",), "target_type": "numbers"}, "column 'b' holds 'x' in row 0", ""),
    ],
)
def test_wrong_columns_are_refused(options, rule, fix):
    refuse(FRAME, rule, fix, **options)


def test_a_missing_target_is_refused_with_its_first_row():
    frame = FRAME.assign(y=[0, 1, None, None])
    refuse(frame, "the target 'y' is missing in 2 rows, first in row 2", "A COPY OF THE FILE without these rows")


@pytest.mark.parametrize("use", ["group", "time"])
def test_rows_are_not_split_by_what_is_missing(use):
    frame = FRAME.assign(customer=[1, None, 2, 2])
    refuse(frame, "column 'customer', by which rows are told apart, is missing in row 1", "COPY", **{use: "customer"})


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"target": " "}, "target"),
        ({"test": 0.0}, "test"),
        ({"test": 1.0}, "test"),
        ({"target_type": "number"}, "target_type"),
        ({"columns": ("a",), "drop": ("b",)}, "drop"),
        ({"group": "a", "time": "b"}, "time"),
        ({"group": "y"}, "group"),
        ({"time": "y"}, "time"),
        ({"categories": ("a",), "numbers": ("a",)}, "numbers"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_cannot_be_are_refused(options, argument):
    with pytest.raises(ArgumentError) as caught:
        TableOptions(**{"target": "y", **options})
    assert caught.value.argument == argument
    assert caught.value.fix
