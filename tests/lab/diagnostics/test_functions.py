import numpy as np
import pytest

from moebius.lab.diagnostics.functions import MOST_ROWS, functions, split_table
from moebius.lab.report.gate_rows import SplitRows


def make_rows(split="test", classes=(), count=4, features=("x",), labels=None):
    numbers = np.linspace(1, 0, count)
    labels = numbers if labels is None else labels
    zeros = np.zeros(count, np.int64)
    weights = {"gate": np.stack([numbers, 1 - numbers], 1), "experts.0.gate": np.full((count, 2), np.nan)}
    alone = {"experts.0": numbers + 1, "experts.1": numbers + 2}
    columns = (labels, numbers / 2, zeros, classes, ("all",), weights, numbers)
    return SplitRows(split, *columns, dict.fromkeys(features, numbers), alone)


def test_worked_literal():
    frame = functions(make_rows())
    assert frame["x1"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert frame["target"].tolist() == frame["x1"].tolist()
    assert frame["prediction"].tolist() == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2])
    assert frame["expert"].tolist() == [1, 1, 0, 0]
    assert (frame["alone_1"] - frame["alone_0"]).tolist() == pytest.approx([1] * 4)
    assert frame["x2"].isna().all()


def test_two_features_and_many_rows():
    frame = functions(make_rows(count=5000, features=("a", "b")))
    assert len(frame) == MOST_ROWS
    assert frame["names"].iloc[0] == "a b"
    assert (frame["x1"].min(), frame["x1"].max()) == (0, 1)


def test_rows_of_more_numbers_of_classes_or_without_a_target_have_no_table():
    assert functions(make_rows(features=())) is None
    assert functions(make_rows(features=("a", "b", "c"))) is None
    assert functions(make_rows(labels=np.full(4, np.nan))) is None
    assert split_table(make_rows(split="train")) is None
    assert split_table(make_rows(classes=("a",))) is None
    assert split_table(make_rows()) is not None
