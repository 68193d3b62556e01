"""Selection keeps exactly the selected rows of every split, and gives them the selected labels."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.errors import ArgumentError
from moebius.lab.data import Dataset, Split
from moebius.lab.data.select_rows import class_positions, select_rows
from moebius.lab.data.targets import with_task
from moebius.tasks import Classification

NAMES, SETS = ("cat", "dog", "3", "ship", "car"), ("one", "two", "three")


def split_of(labels, domains, first=0):
    """A split in which the image of row n is the number n, which identifies the row."""
    images = torch.arange(first, first + len(labels), dtype=torch.float64).reshape(-1, 1)
    return Split(images, torch.tensor(labels, dtype=torch.int64), torch.tensor(domains, dtype=torch.int64))


def rows_of(split):
    """Number, label and set of each row."""
    numbers = [int(number) for number in split.images.flatten().tolist()]
    return list(zip(numbers, split.labels.tolist(), split.domains.tolist(), strict=True))


def splits_of(data):
    return {name: split for name in ("train", "validation", "test") if (split := getattr(data, name)) is not None}


PAIRS = [(label, domain) for label in range(len(NAMES)) for domain in range(len(SETS))]
# Rows of one split as pairs (class, set); every pair occurs at least once.
ROWS = st.lists(st.sampled_from(PAIRS), max_size=20).flatmap(lambda pairs: st.permutations(PAIRS + pairs))
DATA = st.tuples(ROWS, st.none() | ROWS, ROWS)


def dataset_of(drawn):
    """A data set in which no two rows, of whatever splits, have the same number."""
    splits, first = [], 0
    for rows in drawn:
        splits.append(rows and split_of([label for label, _ in rows], [domain for _, domain in rows], first))
        first += len(rows or ())
    return Dataset(*splits, NAMES, SETS, "fingerprint")


@pytest.fixture
def data():
    split = split_of([4, 0, 1, 2, 3, 0, 1], [0, 1, 0, 1, 0, 2, 0])
    return Dataset(
        split, split_of([0, 1, 4], [0, 1, 0], 100), split_of([1, 4, 0, 3], [0, 0, 1, 0], 200), NAMES, SETS, "f"
    )


CLASSES = st.lists(st.integers(0, len(NAMES) - 1), min_size=1, unique=True)


@given(DATA, CLASSES, st.sampled_from(["all", "own"]))
def test_classes_never_leak_rows_and_lose_none(drawn, classes, outputs):
    data = dataset_of(drawn)
    selected = select_rows(data, classes=classes, outputs=outputs)
    for name, before in splits_of(data).items():
        expected = [
            (number, classes.index(label) if outputs == "own" else label, domain)
            for number, label, domain in rows_of(before)
            if label in classes
        ]
        assert rows_of(getattr(selected, name)) == expected
    assert splits_of(selected).keys() == splits_of(data).keys()
    assert selected.classes == (tuple(NAMES[place] for place in classes) if outputs == "own" else NAMES)
    assert selected.domains == data.domains


@given(DATA, st.permutations(range(len(NAMES))), st.lists(st.integers(1, 2), min_size=2, max_size=3))
def test_groups_are_classes_of_their_members(drawn, order, sizes):
    data = dataset_of(drawn)
    groups, remaining = [], list(order)
    for size in sizes:
        groups.append(remaining[:size])
        remaining = remaining[size:]
    groups = [group for group in groups if group]
    group_of = {label: number for number, group in enumerate(groups) for label in group}
    selected = select_rows(data, groups=groups)
    for name, before in splits_of(data).items():
        expected = [(n, group_of[label], domain) for n, label, domain in rows_of(before) if label in group_of]
        assert rows_of(getattr(selected, name)) == expected
    assert selected.classes == tuple(" + ".join(NAMES[label] for label in group) for group in groups)


@given(DATA, st.lists(st.integers(0, len(SETS) - 1), min_size=1, unique=True), st.none() | CLASSES)
def test_sets_keep_their_numbers(drawn, domains, classes):
    data = dataset_of(drawn)
    selected = select_rows(data, classes=classes, domains=domains)
    for name, before in splits_of(data).items():
        expected = [row for row in rows_of(before) if row[2] in domains and (classes is None or row[1] in classes)]
        assert rows_of(getattr(selected, name)) == expected
    assert selected.domains == SETS


@given(DATA, CLASSES, st.integers(1, 3))
def test_fewer_training_rows_are_some_of_them_and_always_the_same(drawn, classes, count):
    data = dataset_of(drawn)
    full, limited = select_rows(data, classes=classes), select_rows(data, classes=classes, train_rows=count)
    rows, all_rows = rows_of(limited.train), rows_of(full.train)
    assert len(rows) == count
    assert rows == [row for row in all_rows if row in rows]  # in their order
    assert rows_of(select_rows(data, classes=classes, train_rows=count).train) == rows
    if count < len(all_rows):
        assert set(rows) < set(rows_of(select_rows(data, classes=classes, train_rows=count + 1).train))
    assert rows_of(limited.test) == rows_of(full.test)


def test_without_a_choice_all_rows_are_kept(data):
    selected = select_rows(data)
    assert torch.equal(selected.train.images, data.train.images)
    assert rows_of(selected.test) == rows_of(data.test)
    assert (selected.classes, selected.domains) == (NAMES, SETS)


def test_names_and_positions_are_the_same_choice(data):
    named, numbered = select_rows(data, classes=["car", "3"]), select_rows(data, classes=[4, 2])
    assert rows_of(named.train) == rows_of(numbered.train) == [(0, 4, 0), (3, 2, 1)]
    assert named.fingerprint == numbered.fingerprint
    assert select_rows(data, domains=["two"]).fingerprint == select_rows(data, domains=[1]).fingerprint
    assert class_positions(["car", "3"], NAMES) == [4, 2]
    assert class_positions(None, NAMES) is None


DIFFERENT = [
    {},
    {"classes": ["cat", "dog"]},
    {"classes": ["cat", "dog", "ship"]},
    {"classes": ["cat", "dog"], "outputs": "own"},
    {"classes": ["dog", "cat"], "outputs": "own"},
    {"groups": [["cat"], ["ship"]]},
    {"groups": [["ship"], ["cat"]]},
    {"groups": [["cat", "dog"], ["ship"]]},
    {"domains": ["one"]},
    {"domains": ["one", "two"]},
    {"classes": ["cat", "dog"], "domains": ["one", "two"]},
    {"train_rows": 3},
    {"train_rows": 4},
    {"classes": ["cat", "dog"], "train_rows": 3},
]
# The order of classes matters only where outputs are their own; groups of one class each are these classes.
EQUAL = [
    ({"classes": ["dog", "cat"], "outputs": "own"}, {"groups": [["dog"], ["cat"]]}),
    ({"classes": ["cat", "dog"]}, {"classes": ["dog", "cat"]}),
    ({"groups": [["cat", "dog"], ["ship"]]}, {"groups": [[0, 1], [3]]}),
]


def test_fingerprints_differ_where_the_choice_does(data):
    data = replace(data, validation=None, test=split_of([0, 1, 3], [0, 0, 0], 200))
    fingerprints = [select_rows(data, **choice).fingerprint for choice in DIFFERENT]
    assert len(set(fingerprints)) == len(fingerprints)
    assert fingerprints == [select_rows(data, **choice).fingerprint for choice in DIFFERENT]
    changed = replace(data, fingerprint="g")
    assert not {select_rows(changed, **choice).fingerprint for choice in DIFFERENT} & set(fingerprints)


@pytest.mark.parametrize(("choice", "equal_choice"), EQUAL)
def test_fingerprints_are_equal_where_the_choice_is(choice, equal_choice, data):
    data = replace(data, validation=None)
    assert select_rows(data, **choice).fingerprint == select_rows(data, **equal_choice).fingerprint
    assert rows_of(select_rows(data, **choice).train) == rows_of(select_rows(data, **equal_choice).train)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"classes": ["cat", "dgo"]}, r"classes: must be names or positions of classes, got 'dgo'.*did you mean dog"),
        ({"classes": [0, 5]}, r"classes: must be positions 0 … 4, got 5"),
        ({"classes": ["cat", 0]}, r"classes: must differ from each other, got \['cat', 0\].*remove one 0"),
        ({"classes": []}, r"classes: needs at least one, got \[\].*classes: \["),
        ({"groups": [["cat"], ["ct"]]}, r"groups: .*got 'ct'.*did you mean cat"),
        ({"groups": [["cat", "dog"], ["dog"]]}, r"groups: must not share a class"),
        ({"groups": [["cat"], []]}, r"groups: needs at least one"),
        ({"classes": ["cat"], "groups": [["cat"], ["dog"]]}, r"groups: cannot stand beside classes"),
        ({"domains": ["two", "for"]}, r"domains: must be names or positions of domains, got 'for'"),
        ({"classes": ["3"]}, r"classes: must leave test rows"),
        ({"classes": ["dog"], "domains": ["three"]}, r"must leave training rows"),
        (
            {"classes": ["car"], "train_rows": 2},
            r"train_rows: must be 1 … 1, the number of selected training rows, got 2",
        ),
        ({"train_rows": 0}, r"train_rows: must be 1 … 7"),
    ],
)
def test_invalid_choices_are_refused(choice, message, data):
    with pytest.raises(ArgumentError, match=f"(?s){message}"):
        select_rows(data, **choice)


def test_held_out_rows_of_other_classes_are_refused_too(data):
    with pytest.raises(ArgumentError, match="must leave validation rows"):
        select_rows(data, classes=["ship"])


@pytest.mark.parametrize(
    ("selection", "outputs"),
    [
        ({"classes": ["cat", "dog"], "outputs": "own"}, 2),
        ({"classes": ["cat", "dog"]}, 5),
        ({"groups": [["cat", "dog"], ["3", "ship", "car"]]}, 2),
        ({}, 5),
    ],
)
def test_a_model_has_an_output_for_each_class_that_labels_count(data, selection, outputs):
    assert select_rows(with_task(data, Classification()), **selection).facts["classes"] == outputs


def test_rows_of_other_classes_are_kept_as_one_class_more():
    labels = [0] * 4 + [1] * 4 + [2] * 40
    data = Dataset(split_of(labels, [0] * 48), None, split_of(labels, [0] * 48, 100), NAMES, SETS, "f")
    balanced = select_rows(data, classes=["dog", "cat"], outputs="own+other")
    assert balanced.classes == ("dog", "cat", "other")
    assert torch.bincount(balanced.train.labels).tolist() == [4, 4, 8]
    assert all(label == {0: 1, 1: 0, 2: 2}[labels[number]] for number, label, _ in rows_of(balanced.train))
    everything = select_rows(data, classes=["dog", "cat"], outputs="own+other", others="all")
    assert torch.bincount(everything.train.labels).tolist() == [4, 4, 40]
    half = select_rows(data, classes=["dog", "cat"], outputs="own+other", others=0.5)
    assert torch.bincount(half.test.labels).tolist() == [4, 4, 4]
    assert len({data.fingerprint for data in (balanced, everything, half)}) == 3
    with pytest.raises(ArgumentError, match="of the 40 of other classes, beside 8 of its own"):
        select_rows(data, classes=["dog", "cat"], outputs="own+other", others=6.0)
    with pytest.raises(ArgumentError, match="needs classes"):
        select_rows(data, outputs="own+other")


def test_training_on_held_out_rows_leaves_out_what_was_trained_on(data):
    split = split_of([0, 1] * 5, [0] * 10, 100)
    rows = Dataset(data.train, split, data.test, NAMES, SETS, "f")
    moved = select_rows(rows, trained="held_out")
    assert sorted(rows_of(moved.train) + rows_of(moved.validation)) == rows_of(split)
    assert len(moved.validation) == 2
    assert rows_of(moved.test) == rows_of(data.test)
    assert moved.fingerprint != select_rows(rows).fingerprint
    with pytest.raises(ArgumentError, match="needs rows that are held out"):
        select_rows(Dataset(data.train, None, data.test, NAMES, SETS, "f"), trained="held_out")
