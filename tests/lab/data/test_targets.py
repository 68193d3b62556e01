"""Data with targets as tasks take them."""

import numpy as np
import pandas as pd
import pytest
import torch

from moebius.kit.errors import ArgumentError, StudyError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources import CSV, Digits, Sklearn
from moebius.lab.data.targets import with_task
from moebius.tasks import Classification, MultiLabel, MultiTask, Regression


@pytest.fixture
def table(tmp_path):
    """Two targets of numbers and two of classes, of which each misses some values."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"x": random.random(100), "height": random.random(100), "weight": 3 + 9 * random.random(100)})
    frame["ill"], frame["kind"] = random.choice(["no", "yes"], 100), random.choice(["a", "b", "c"], 100)
    frame.loc[3, "height"], frame.loc[4, "kind"] = np.nan, None
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)

    def load(*targets, **options):
        return load_sets([CSV(str(path), list(targets), **options)], 8)

    return load


def test_a_single_target_of_numbers(table):
    data = with_task(table("weight"), Regression())
    assert (data.train.labels.shape, data.train.labels.dtype) == ((80,), torch.float32)
    assert (data.classes, data.facts["classes"], data.targets) == ((), 1, {"weight": ("weight",)})
    assert data.train.labels.mean().abs() < 1e-6


def test_several_tasks_take_the_targets_of_their_names_some_missing(table):
    task = MultiTask({"kind": Classification(), "height": Regression()})
    data = with_task(table("height", "kind", "ill"), task)
    assert (data.facts["outputs"], data.facts["classes"], data.classes) == ({"kind": 3, "height": 1}, 4, ())
    labels = {name: torch.cat([data.train.labels[name], data.test.labels[name]]) for name in ("kind", "height")}
    assert list(data.train.labels) == ["kind", "height"]
    assert int((labels["kind"] == -100).sum()) == 1
    assert int(labels["height"].isnan().sum()) == 1


def test_several_columns_of_numbers_or_labels_are_one_target(table):
    data = with_task(table("weight", "x"), Regression())
    assert (data.train.labels.shape, data.facts["classes"]) == ((80, 2), 2)
    assert data.targets == {"weight": ("weight",), "x": ("x",)}


def test_columns_of_two_classes_are_labels(tmp_path):
    frame = pd.DataFrame({"x": np.arange(40.0), "a": ["no", "yes"] * 20, "b": [0, 0, 1, 1] * 10})
    frame.loc[0, "a"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = with_task(load_sets([CSV(str(tmp_path / "t.csv"), ["a", "b"])], 8), MultiLabel())
    labels = torch.cat([data.train.labels, data.test.labels])
    assert (labels.shape, data.facts["classes"], data.classes) == ((40, 2), 2, ())
    assert int(labels.isnan().sum()) == 1
    assert sorted(set(labels[:, 1].tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("targets", "task", "message", "fix"),
    [
        (["weight"], Classification(), "the target 'weight' is numbers, and the task learns classes", "regression"),
        (
            ["kind", "x"],
            Regression(),
            r"has 3 classes \(a, b, c\), and the task needs numbers",
            "numbers",
        ),
        (["kind", "ill"], Classification(), "the targets kind, ill are several", "multi_task"),
        (["kind", "ill"], MultiLabel(), "the target 'kind' has 3 classes", "two classes"),
        (["weight", "ill"], MultiLabel(), "the target 'weight' is numbers, and the task needs labels", "two classes"),
        (["ill"], MultiTask({"kind": Classification()}), "task.tasks.kind: needs a target of each name", "target:"),
        (
            ["ill", "weight"],
            MultiTask({"weight": Classification(), "ill": Classification()}),
            "is numbers",
            "regression",
        ),
    ],
)
def test_targets_of_another_task_are_refused(table, targets, task, message, fix):
    with pytest.raises(StudyError, match=message) as caught:
        with_task(table(*targets), task)
    assert fix in caught.value.fix


def test_what_breaks_a_rule_of_the_task_is_refused(table):
    with pytest.raises(ArgumentError, match=r"task\.weights: needs one for each of 2 classes"):
        with_task(table("ill"), Classification(weights=[1.0, 2.0, 3.0]))


def test_images_keep_their_classes(tmp_path):
    data = load_sets([Digits()], 8, cache_dir=tmp_path)
    assert with_task(data, Classification()).facts == data.facts
    with pytest.raises(StudyError, match="has 10 classes"):
        with_task(data, Regression())


def test_a_column_tells_the_domains(tmp_path):
    frame = pd.DataFrame({"x": np.arange(40.0), "y": np.arange(40) % 2, "region": ["south", "north"] * 20})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = load_sets([CSV(str(tmp_path / "t.csv"), "y", domain="region")], 8)
    assert (data.domains, data.columns.features) == (("north", "south"), ("x",))
    # Even rows are of the south and of class 0.
    assert torch.equal(data.train.domains, 1 - data.train.labels)
    seen = load_sets([CSV(str(tmp_path / "t.csv"), "y", domain="region", columns=["x", "region"])], 8)
    assert seen.columns.features == ("x", "region")
    assert data.columns.domain == "region"


def test_a_table_of_scikit_learn_is_standardised():
    labels = with_task(load_sets([Sklearn("diabetes")], 8), Regression()).train.labels
    assert labels.std(correction=0).item() == pytest.approx(1, abs=1e-5)
