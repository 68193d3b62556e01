import pytest
import torch
from torch.nn import functional as F

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.crop import Crop

IMAGE = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])[None, None]
PADDED = {
    "zeros": F.pad(IMAGE, (1, 1, 1, 1)),
    "nearest": F.pad(IMAGE, (1, 1, 1, 1), mode="replicate"),
}


@pytest.mark.parametrize("fill", ["zeros", "nearest"])
def test_the_nine_windows_of_a_padded_image_are_equally_frequent(fill):
    torch.manual_seed(0)
    windows = PADDED[fill][0, 0].unfold(0, 3, 1).unfold(1, 3, 1).reshape(9, 9)
    crops = Crop(padding=1, fill=fill)(IMAGE.expand(4500, -1, -1, -1)).flatten(1)
    matches = (crops[:, None] == windows).all(-1)
    assert torch.equal(matches.sum(1), torch.ones(4500, dtype=torch.int64))
    assert (matches.sum(0) - 500).abs().max() < 80


def test_pixels_are_moved_and_not_mixed():
    images = torch.rand(100, 3, 32, 32)
    crops = Crop(padding=4)(images)
    for before, after in zip(images, crops, strict=True):
        assert torch.isin(after[after > 0], before).all()
        assert (after > 0).float().mean() >= (28 / 32) ** 2 - 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": 0}, "padding: needs a whole number of at least 1, got 0"),
        ({"fill": "black"}, r"fill: needs one of zeros, nearest, got 'black'\n  fix: one of zeros, nearest"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Crop(**arguments)
