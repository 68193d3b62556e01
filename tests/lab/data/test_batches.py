import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.kit.errors import ArgumentError
from moebius.lab.data import Batches, Split, ordered_batches, scale_pixels


def make_split(rows: int) -> Split:
    images = (torch.arange(rows) % 256).to(torch.uint8)[:, None, None, None].expand(rows, 2, 3, 3)
    return Split(images, torch.arange(rows), torch.arange(rows) % 2)


def test_scale_divides_by_255():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    assert scale_pixels(images).flatten().tolist() == [0.0, torch.tensor(0.2).item(), 1.0]


def test_every_byte_is_the_correctly_rounded_quotient():
    images = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    assert torch.equal(scale_pixels(images).flatten().double(), (torch.arange(256) / 255.0).double())


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_is_a_permutation(rows, size, seed, epoch):
    batches = list(Batches(make_split(rows), size, seed, epoch))
    assert torch.cat([batch.rows for batch in batches]).sort().values.tolist() == list(range(rows))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size


def test_a_batch_is_the_rows_of_the_split():
    split = make_split(20)
    for batch in Batches(split, 6, seed=0, epoch=0):
        assert torch.equal(batch.x, split.images[batch.rows] / 255)
        assert torch.equal(batch.labels, split.labels[batch.rows])
        assert torch.equal(batch.domains, split.domains[batch.rows])


def test_the_order_depends_on_seed_and_epoch_alone():
    order = Batches(make_split(50), 8, seed=1, epoch=2).order
    assert torch.equal(order, Batches(make_split(50), 3, seed=1, epoch=2, start=4).order)
    assert not torch.equal(order, Batches(make_split(50), 8, seed=2, epoch=1).order)
    assert not torch.equal(order, Batches(make_split(50), 8, seed=1, epoch=3).order)


def test_the_order_is_the_same_on_any_machine():
    assert Batches(make_split(8), 8, seed=0, epoch=1).order.tolist() == [[1, 3, 7, 6, 0, 4, 2, 5]]


def test_start_skips_exactly():
    epoch = list(Batches(make_split(23), 4, seed=3, epoch=1))
    for start in range(len(epoch) + 1):
        resumed = Batches(make_split(23), 4, seed=3, epoch=1, start=start)
        assert len(resumed) == len(epoch) - start
        batches = list(resumed)
        assert len(batches) == len(resumed)
        assert all(
            torch.equal(batch.x, expected.x) and torch.equal(batch.rows, expected.rows)
            for batch, expected in zip(batches, epoch[start:], strict=True)
        )


def test_in_order_keeps_the_order():
    batches = list(ordered_batches(make_split(7), 3, device="cpu"))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert batches[1].labels.tolist() == [3, 4, 5]


def test_channels_last_changes_the_layout_only():
    plain, last = (next(iter(Batches(make_split(9), 4, 0, 0, channels_last=flag))) for flag in (False, True))
    assert torch.equal(plain.x, last.x)
    assert last.x.is_contiguous(memory_format=torch.channels_last)
    assert not plain.x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_split_on_a_gpu_gives_the_same_batches_there():
    split = make_split(50)
    for on_cpu, on_gpu in zip(Batches(split, 8, 0, 1), Batches(split.to("cuda"), 8, 0, 1), strict=True):
        assert on_gpu.x.is_cuda
        assert torch.equal(on_cpu.x, on_gpu.x.cpu())
        assert torch.equal(on_cpu.rows, on_gpu.rows.cpu())


@pytest.mark.parametrize(
    ("argument", "value"), [("batch_size", 0), ("seed", -1), ("epoch", -1), ("start", -1), ("start", 4)]
)
def test_numbers_out_of_range_are_refused(argument, value):
    arguments = {"batch_size": 4, "seed": 0, "epoch": 0, argument: value}
    with pytest.raises(ArgumentError, match=f"{argument}: must be"):
        Batches(make_split(12), **arguments)


def test_several_seeds_give_the_rows_of_as_many_runs_in_turn():
    split = make_split(10)
    together = list(Batches(split, 4, seed=[3, 5], epoch=1, start=1))
    alone = [list(Batches(split, 4, seed=seed, epoch=1, start=1)) for seed in (3, 5)]
    for batch, *of_runs in zip(together, *alone, strict=True):
        for name in ("x", "labels", "domains", "rows"):
            assert torch.equal(getattr(batch, name), torch.cat([getattr(each, name) for each in of_runs]))
