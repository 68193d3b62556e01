import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.split import Split
from moebius.lab.data.subset import keep_classes

NAMES, DOMAINS = ("m 0", "m 1", "c cat", "c dog"), ("m", "c")


@pytest.fixture
def split() -> Split:
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    return Split(images, torch.tensor([3, 0, 1, 2, 3, 0]), torch.tensor([1, 0, 0, 1, 1, 0]))


def test_labels_are_positions_among_the_kept_classes(split):
    names, train, test = keep_classes(NAMES, DOMAINS, split, split, ["c dog", 0])
    assert names == ("c dog", "m 0")
    assert train.labels.tolist() == test.labels.tolist() == [0, 1, 0, 1]
    assert train.images.flatten().tolist() == [0, 1, 4, 5]
    assert train.domains.tolist() == [1, 0, 1, 0]


def test_all_classes_in_order_change_nothing(split):
    names, train, _ = keep_classes(NAMES, DOMAINS, split, split, list(NAMES))
    assert names == NAMES
    assert torch.equal(train.labels, split.labels)
    assert torch.equal(train.images, split.images)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["m 0", 4], "classes: must be positions 0 … 3, got 4"),
        (["m 0", "c cot"], "did you mean c cat"),
        (["m 0", 0, "c cat"], "classes: must differ"),
        (["m 0", "m 1"], "classes: must leave rows of c"),
        ([], "classes: needs at least one"),
    ],
)
def test_invalid_choices_of_classes_are_refused(split, classes, message):
    with pytest.raises(ArgumentError, match=message):
        keep_classes(NAMES, DOMAINS, split, split, classes)
