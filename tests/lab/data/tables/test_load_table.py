import numpy as np
import pandas as pd
import pytest
import torch

from moebius.kit.errors import ArgumentError, DataError
from moebius.lab.data import load_sets
from moebius.lab.data.raw import Raw
from moebius.lab.data.sources import Digits, Sklearn
from moebius.lab.data.tables.load_table import load_table
from moebius.lab.data.tables.make_table import make_table
from moebius.lab.data.tables.table import TableOptions, TableSource


class Rows(TableSource):
    """A table in memory."""

    name = "rows"

    def __init__(self, frame: pd.DataFrame, target: str = "y", **options):
        self.frame, self.options = frame, TableOptions(target, **options)

    def open(self, data_dir=None):
        return Raw("rows", lambda: make_table(self.frame, self.options, "rows"))


def table(rows: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = {
        "x": random.normal(5, 2, rows),
        "color": random.choice(["red", "green", "blue"], rows),
        "customer": random.integers(40, size=rows),
        "day": pd.date_range("2024-01-01", periods=rows),
        "y": random.choice(["no", "yes"], rows, p=[0.75, 0.25]),
    }
    return pd.DataFrame(frame).sample(frac=1, random_state=0)


PLAIN = {"columns": ("x", "color")}


def test_a_table_becomes_rows_of_float32_and_labels():
    data = load_table(Rows(table(), **PLAIN))
    assert data.train.images.dtype == torch.float32
    assert data.train.labels.dtype == torch.int64
    assert (len(data.train), len(data.test), data.validation) == (160, 40, None)
    assert (data.classes, data.domains) == (("no", "yes"), ("rows",))
    assert data.facts == {"features": 2, "classes": 2, "domains": 1, "cardinalities": [4]}
    # The same share of each class.
    shares = [split.labels.float().mean().item() for split in (data.train, data.test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_columns_are_learned_on_the_training_rows_alone():
    frame = table()
    data = load_table(Rows(frame, **PLAIN), validation=0.25)
    torch.testing.assert_close(data.train.images[:, 0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.images[:, 0].std(correction=0), torch.tensor(1.0))
    outside = torch.cat([data.test.images, data.validation.images])[:, 0]
    assert outside.mean().abs() > 1e-3
    # What stands in test rows changes nothing that the model is trained on.
    is_test = np.ones(len(frame), dtype=bool)
    is_test[: len(frame) - 40] = False
    ordered = frame.assign(day=np.arange(len(frame)))
    changed = ordered.assign(x=np.where(is_test, 1e6, ordered["x"]), color=np.where(is_test, "grey", ordered["color"]))
    first, second = (load_table(Rows(each, time="day", **PLAIN)) for each in (ordered, changed))
    assert torch.equal(first.train.images, second.train.images)
    assert first.columns == second.columns
    assert second.test.images[:, 1].eq(0).all()
    assert first.fingerprint != second.fingerprint


def test_two_loads_are_equal_and_a_seed_draws_other_rows():
    first, again, other = (load_table(Rows(table(), **PLAIN, seed=seed), validation=0.1) for seed in (0, 0, 1))
    assert torch.equal(first.test.images, again.test.images)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not torch.equal(first.test.labels, other.test.labels)


@pytest.mark.parametrize("held_out", [{"validation": 0.2}, {"validation_rows": 30}])
def test_no_group_is_in_two_splits(held_out):
    frame = table().assign(x=lambda frame: frame["customer"])
    data = load_table(Rows(frame, columns=("x",), group="customer"), **held_out)
    groups = [set(split.images[:, 0].tolist()) for split in (data.train, data.validation, data.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert sum(map(len, groups)) == frame["customer"].nunique()
    assert len(data.validation) == pytest.approx(31, abs=8)


def test_the_latest_rows_are_tested_on_and_those_before_them_held_out():
    frame = table().assign(x=lambda frame: frame["day"].astype("int64"))
    data = load_table(Rows(frame, columns=("x",), time="day"), validation=0.25)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [120, 40, 40]
    assert data.train.images.max() < data.validation.images.min()
    assert data.validation.images.max() < data.test.images.min()


def test_validation_rows_do_not_depend_on_the_number_of_training_rows():
    many, few = (load_table(Rows(table(), **PLAIN), train_rows=rows, validation_rows=20) for rows in (None, 50))
    assert (len(few.train), len(few.validation), len(many.validation)) == (50, 20, 20)
    assert torch.equal(many.validation.labels, few.validation.labels)
    assert torch.equal(many.validation.images[:, 1], few.validation.images[:, 1])


def test_rows_and_classes_are_chosen():
    data = load_table(Sklearn("iris"), classes=["virginica", "setosa"], train_rows=60, test_rows=10)
    assert data.classes == ("virginica", "setosa")
    assert (len(data.train), len(data.test)) == (60, 10)
    whole = load_table(Sklearn("iris"), classes=["virginica", "setosa"])
    assert sorted(whole.test.labels.tolist()) == [0] * 10 + [1] * 10
    means = [data.train.images[data.train.labels == label, 2].mean() for label in (0, 1)]
    assert means[0] > means[1]  # petals are longer


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"train_rows": 0}, "train_rows"),
        ({"train_rows": 161}, "train_rows"),
        ({"test_rows": 41}, "test_rows"),
        ({"validation_rows": 160}, "validation_rows"),
        ({"validation_rows": -1}, "validation_rows"),
        ({"validation": 1.0}, "validation"),
        ({"validation": 0.1, "validation_rows": 5}, "validation"),
        ({"classes": ["maybe"]}, "classes"),
    ],
)
def test_numbers_out_of_range_are_refused(options, argument):
    with pytest.raises(ArgumentError) as caught:
        load_table(Rows(table(), **PLAIN), **options)
    assert caught.value.argument == argument
    assert caught.value.fix


def test_a_target_of_numbers_has_no_classes_to_keep():
    with pytest.raises(
        ArgumentError, match="classes: must be null where the target is no single column of classes"
    ) as caught:
        load_table(Sklearn("diabetes"), classes=["1"])
    assert caught.value.fix == "classes: null"


def test_too_few_rows_are_refused():
    with pytest.raises(DataError, match="1 rows are too few") as caught:
        load_table(Rows(pd.DataFrame({"x": [1.0], "y": ["a"]})))
    assert caught.value.fix


def test_a_table_stands_alone_and_load_sets_reads_it(tmp_path):
    data = load_sets([Sklearn("wine")], 8, validation=0.1, cache_dir=tmp_path)
    assert len(data.validation) == pytest.approx(0.1 * (len(data.train) + len(data.validation)), abs=1.5)
    assert data.columns.describe() == "13 numbers; 0 category columns; target target, 3 classes"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match="sets: must be one set where it is a table") as caught:
        load_sets([Sklearn("wine"), Digits()], 8)
    assert caught.value.fix
