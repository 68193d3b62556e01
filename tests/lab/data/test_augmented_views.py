import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.flip import Flip
from moebius.lab.data.augmentation.noise import Noise
from moebius.lab.data.augmentation.shift import Shift
from moebius.lab.data.augmented_views import CHUNK, make_augmented_views
from moebius.lab.data.split import Split


def random_split(rows=7, channels=3, size=6):
    generator = torch.Generator().manual_seed(rows)
    images = torch.randint(0, 256, (rows, channels, size, size), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(rows), torch.arange(rows) % 2)


def are_equal(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", "domains"))


def test_views_follow_each_other_in_the_splits_order():
    split = random_split(3)
    twice = make_augmented_views(split, [Flip(chance=1)], count=2, seed=0)
    assert twice.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert twice.domains.tolist() == [0, 1, 0, 0, 1, 0]
    assert torch.equal(twice.images, torch.cat([split.images.flip(-1)] * 2))


def test_without_augmentation_the_rows_are_unchanged_to_the_bit():
    """All 256 values of a byte come back from the interval [0, 1] unchanged."""
    images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    split = Split(images, torch.zeros(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    assert torch.equal(make_augmented_views(split, [], count=1, seed=0).images, images)


def test_views_differ_and_are_rounded_to_the_nearest_byte():
    split = random_split(50)
    both = make_augmented_views(split, [Flip(), Shift(0.2)], count=2, seed=0).images
    assert both.dtype == torch.uint8
    assert not torch.equal(both[:50], both[50:])
    grey = Split(torch.full((20, 1, 20, 20), 100, dtype=torch.uint8), torch.arange(20), torch.arange(20))
    noisy = make_augmented_views(grey, [Noise(std=0.02)], count=1, seed=0).images.double()
    assert abs(noisy.mean() - 100) < 0.25  # rounding down would give 99.5


def test_the_seed_alone_decides_the_bits():
    split, augmentations = random_split(), [Flip(), Shift(), Noise()]
    first = make_augmented_views(split, augmentations, count=2, seed=3)
    torch.rand(5)
    torch.manual_seed(99)
    assert are_equal(make_augmented_views(split, augmentations, count=2, seed=3), first)
    assert not are_equal(make_augmented_views(split, augmentations, count=2, seed=4), first)


def test_the_global_generator_stays_as_it_was():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    make_augmented_views(random_split(), [Noise()], count=2, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_more_views_leave_the_first_ones_as_they_are():
    split, augmentations = random_split(), [Flip(), Shift()]
    three = make_augmented_views(split, augmentations, count=3, seed=0)
    assert are_equal(three.take(torch.arange(7)), make_augmented_views(split, augmentations, count=1, seed=0))


def test_chunks_of_rows_are_joined_in_order():
    rows = CHUNK + 5
    split = Split(
        (torch.arange(rows) % 256).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2),
        torch.arange(rows),
        torch.zeros(rows, dtype=torch.int64),
    )
    assert torch.equal(make_augmented_views(split, [Flip()], count=2, seed=0).images, torch.cat([split.images] * 2))


def test_a_split_without_rows():
    assert len(make_augmented_views(random_split(0), [Flip()], count=3, seed=0)) == 0


@pytest.mark.parametrize(("count", "seed", "argument"), [(0, 0, "count"), (1, -1, "seed")])
def test_numbers_out_of_range_are_refused(count, seed, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        make_augmented_views(random_split(), [], count=count, seed=seed)
