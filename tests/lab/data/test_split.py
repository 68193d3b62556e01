import pytest
import torch

from moebius.lab.data import Dataset, Split
from moebius.lab.data.batches import Batches, ordered_batches


@pytest.fixture
def split() -> Split:
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2)
    return Split(images, torch.tensor([5, 6, 7]), torch.tensor([0, 1, 1]))


def test_take_keeps_the_order_of_the_index(split):
    taken = split.take(torch.tensor([2, 0, 2]))
    assert len(split) == 3
    assert taken.labels.tolist() == [7, 5, 7]
    assert taken.domains.tolist() == [1, 0, 1]
    assert taken.images[:, 0, 0, 0].tolist() == [2, 0, 2]


def test_taking_all_rows_is_the_split_itself(split):
    taken = split.take(torch.arange(3))
    assert torch.equal(taken.images, split.images)
    assert torch.equal(taken.labels, split.labels)


def test_moving_to_where_the_tensors_are_copies_nothing(split):
    assert split.to("cpu").images.data_ptr() == split.images.data_ptr()


def test_facts_are_counts_of_what_the_tensors_hold(split):
    data = Dataset(split, None, split, tuple("abcdefgh"), ("one", "two"), "0")
    assert data.facts == {"features": 12, "channels": 3, "size": 2, "classes": 8, "domains": 2}


def test_rows_that_are_not_bytes_may_have_any_shape(split):
    rows = Split(torch.arange(6, dtype=torch.float64).reshape(3, 2), split.labels, split.domains)
    assert rows.take(torch.tensor([2, 0])).images.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    (batch,) = ordered_batches(rows, 3)
    assert batch.x.dtype == torch.float64
    assert torch.equal(batch.x, rows.images)  # no pixels, so nothing to scale


def test_domains_are_whole_numbers(split):
    with pytest.raises(Exception, match="domains"):
        Split(split.images, split.labels, split.domains.float())


def test_rows_may_have_several_inputs_and_targets():
    rows = Split(
        (torch.rand(5, 2), {"ids": torch.arange(5)}),
        {"price": torch.rand(5), "kind": torch.arange(5)},
        torch.zeros(5).long(),
    )
    picked = rows.take(torch.tensor([3, 1]))
    assert picked.images[1]["ids"].tolist() == picked.labels["kind"].tolist() == [3, 1]
    batches = list(Batches(rows, 2, seed=[0, 1], epoch=0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    for batch in batches:
        assert torch.equal(batch.x[1]["ids"], batch.labels["kind"])
        assert torch.equal(batch.labels["kind"], batch.rows)
        assert torch.equal(batch.of_run(1, 2).rows, batch.rows[len(batch) // 2 :])
