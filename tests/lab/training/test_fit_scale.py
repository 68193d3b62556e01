"""`fit(scale=…)`: uint8 images on any scale, as if they had been scaled before."""

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.lab.data import Dataset, PixelScale, Split
from moebius.lab.predict import explain


def make_rows(count=60, seed=0):
    images = torch.randint(0, 256, (count, 2, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return images, (images[:, 0].float().mean((1, 2)) > 127).long()


def fitted(images, labels, **options):
    torch.manual_seed(1)
    moe = mb.Mixture(mb.gates.Linear(32, 2), [mb.experts.Linear(32, 2) for _ in range(2)], combine=mb.LogMixture())
    options = {"epochs": 3, "batch_size": 16, "lr": 1e-2, "progress": False, "device": "cpu", **options}
    return mb.fit(moe, (images, labels), **options)


def scaled(images, kind, train):
    pixels = train.double().movedim(1, 0).flatten(1)
    mean, deviation = (values.view(2, 1, 1) for values in (pixels.mean(1), pixels.std(1, correction=0)))
    standardised = ((images - mean) / deviation).float()
    unit = images / 255
    return {"unit": unit, "raw": images.float(), "signed": unit * 2 - 1, "standardised": standardised}[kind]


@pytest.mark.parametrize("kind", ["unit", "raw", "signed", "standardised"])
def test_it_trains_as_on_numbers_that_are_scaled_before(kind):
    (train, labels), (held_out, others) = make_rows(), make_rows(20, 1)
    ours = fitted(train, labels, validation=(held_out, others), scale=kind)
    by_hand = (scaled(held_out, kind, train), others)
    theirs = fitted(scaled(train, kind, train), labels, validation=by_hand)
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert ours.held_out is not None
    assert theirs.held_out is not None
    torch.testing.assert_close(ours.held_out.losses, theirs.held_out.losses, rtol=1e-4, atol=1e-5)
    assert ours.origin is not None
    assert ours.origin.data.scale.kind == kind


def test_the_default_is_unit_to_the_bit():
    rows = make_rows()
    first, second = fitted(*rows), fitted(*rows, scale="unit")
    third = fitted(rows[0] / 255, rows[1])
    for same in (second, third):
        assert all(map(torch.equal, first.model.parameters(), same.model.parameters()))


def test_explanations_and_diagnoses_read_pixels_on_the_scale_of_the_training():
    images, labels = make_rows()
    outcome = fitted(images, labels, scale="raw", validation=0.0)
    explanation = explain(outcome, images[:1])[0]
    by_hand = explain(outcome, images[:1].float())[0]
    assert explanation.to_dict() == by_hand.to_dict()
    assert outcome.train.losses[0].item() == pytest.approx(
        torch.nn.functional.nll_loss(outcome.model(images[:1].float()), labels[:1]).item(), rel=1e-4
    )


def test_augmentation_sees_0_to_1():
    seen = []

    def keep(images):
        seen.append((images.min().item(), images.max().item()))
        return images

    fitted(*make_rows(), scale="raw", augment=[keep], epochs=1)
    assert seen
    assert all(0 <= low <= high <= 1 for low, high in seen)


def test_what_has_no_pixels_or_another_scale_is_refused():
    images, labels = make_rows()
    with pytest.raises(ArgumentError, match="scale: is of images of uint8 pixels"):
        fitted(images / 255, labels, scale="raw")
    with pytest.raises(ArgumentError, match="scale: needs one of unit, raw"):
        fitted(images, labels, scale="bytes")
    split = Split(images, labels, labels * 0, PixelScale("signed"))
    data = Dataset(split, None, split, ("0", "1"), ("set",), "")
    with pytest.raises(ArgumentError, match="scale: is that of the data set"):
        mb.fit(mb.Mixture(mb.gates.Linear(32, 1), [mb.experts.Linear(32, 2)]), data, scale="raw", progress=False)
    assert data.scale == PixelScale("signed")
