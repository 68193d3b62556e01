"""Scales of pixels against readable formulas in NumPy."""

import numpy as np
import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data import Batches, Dataset, PixelScale, Split, load_sets, ordered_batches, scale_pixels
from moebius.lab.data.augmentation.flip import Flip
from moebius.lab.data.augmentation.noise import Noise
from moebius.lab.data.augmented_views import make_augmented_views
from moebius.lab.data.select_rows import select_rows
from moebius.lab.data.sources.digits import Digits
from moebius.lab.data.targets import with_task
from moebius.tasks import Classification

UNIT = PixelScale()
KINDS = ("unit", "raw", "signed", "standardised")


def split_of(images, scale=UNIT):
    numbers = torch.arange(len(images))
    return Split(images, numbers % 3, numbers * 0, scale)


def random_images(rows=50, channels=3, seed=0):
    images = torch.randint(0, 256, (rows, channels, 4, 4), generator=torch.Generator().manual_seed(seed))
    return (images // torch.tensor([1, 2, 5])[:channels, None, None]).to(torch.uint8)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    options = {"size": 8, "train_rows": 300, "validation_rows": 60, "cache_dir": tmp_path_factory.mktemp("cache")}
    return lambda scale: load_sets([Digits()], scale=scale, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_what_the_formula_says(kind):
    images = random_images()
    data = Dataset(split_of(images), None, split_of(images[:7]), ("a",) * 3, ("set",), "").with_scale(kind)
    pixels = images.numpy().astype(np.float64)
    mean, deviation = pixels.mean((0, 2, 3), keepdims=True), pixels.std((0, 2, 3), keepdims=True)
    expected = {
        "unit": pixels / 255,
        "raw": pixels,
        "signed": pixels / 127.5 - 1,
        "standardised": (pixels - mean) / deviation,
    }[kind]
    for batch in [*Batches(data.train, 8, seed=1, epoch=2), *ordered_batches(data.test, 4)]:
        assert batch.x.dtype == torch.float32
        np.testing.assert_allclose(batch.x, expected[batch.rows], rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


def test_raw_pixels_are_0_to_255_to_the_bit():
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    (batch,) = ordered_batches(split_of(images, PixelScale("raw")), 256)
    assert batch.x.flatten().tolist() == list(range(256))


def test_unit_is_the_quotient_to_the_bit_and_the_default():
    images = random_images()
    (batch,) = ordered_batches(split_of(images), 50)
    assert torch.equal(batch.x, images / 255)
    assert split_of(images).scale == PixelScale("unit")


def test_standardised_rows_have_mean_0_and_deviation_1_by_the_training_rows_alone(digits):
    data, unit = digits("standardised"), digits("unit")
    assert data.validation is not None
    assert len(data.validation) == 60
    scaled = scale_pixels(data.train.images, scale=data.scale).double()
    assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
    assert scaled.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    # Other rows have the same scale.
    assert (
        data.scale == data.test.scale == data.validation.scale == PixelScale.measure("standardised", unit.train.images)
    )
    assert data.scale != PixelScale.measure("standardised", torch.cat([unit.train.images, unit.validation.images]))


def test_a_channel_without_contrast_is_not_divided_by_zero():
    images = torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)
    scale = PixelScale.measure("standardised", images)
    assert (scale.mean, scale.deviation) == ((0.2,), (1.0,))
    assert torch.equal(scale_pixels(images, scale=scale), torch.zeros(3, 1, 2, 2))


def test_images_of_other_axes_are_one_channel():
    images = torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)
    scale = PixelScale.measure("standardised", images)
    assert scale_pixels(images, scale=scale).tolist() == [[-1, 1], [1, -1]]


@pytest.mark.parametrize("kind", KINDS)
def test_augmentations_see_pixels_in_0_to_1_and_the_scale_comes_after(kind):
    images = random_images()
    scale = PixelScale.measure(kind, images)
    seen = []

    def keep(x):
        seen.append(x.clone())
        return x

    augmentations = [Noise(0.1), keep]
    torch.manual_seed(3)
    (batch,) = Batches(split_of(images, scale), 50, 0, 0, augmentations=augmentations)
    torch.manual_seed(3)
    (unit,) = Batches(split_of(images), 50, 0, 0, augmentations=augmentations)
    assert torch.equal(seen[0], seen[1])
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1
    assert torch.equal(unit.x, seen[0])
    assert torch.equal(batch.x, scale(seen[0]))


def test_views_keep_the_scale():
    views = make_augmented_views(split_of(random_images(), PixelScale("raw")), [Flip()], 2, 0)
    assert views.images.dtype == torch.uint8
    assert views.scale.kind == "raw"


def test_every_choice_of_rows_keeps_the_scale(digits):
    data = digits("raw")
    chosen = with_task(select_rows(data, classes=["3", "8"], outputs="own"), Classification()).to("cpu")
    assert chosen.validation is not None
    assert [each.scale.kind for each in (chosen.train, chosen.validation, chosen.test)] == ["raw"] * 3


def test_the_fingerprint_is_of_the_rows(digits):
    assert len({digits(kind).fingerprint for kind in KINDS}) == 1


def test_a_scale_can_be_taken_back(digits):
    data = digits("raw")
    assert data.with_scale("raw") is data
    assert data.with_scale("unit").scale == PixelScale()
    assert data.with_scale("standardised").scale == digits("standardised").scale


@pytest.mark.parametrize("kind", KINDS)
def test_values_make_the_scale_again(kind):
    scale = PixelScale.measure(kind, random_images())
    assert PixelScale.from_values(scale.to_values()) == scale


def test_what_is_no_scale_or_no_image_is_refused(digits):
    with pytest.raises(ArgumentError, match="needs one of unit, raw, standardised, signed, got 'rau'"):
        digits("rau")
    numbers = split_of(torch.rand(4, 3))
    with pytest.raises(ArgumentError, match="uint8 pixels"):
        Dataset(numbers, None, numbers, (), ("set",), "").with_scale("raw")
