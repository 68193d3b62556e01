import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.data.load_sets import load_sets
from moebius.lab.data.sources import Digits, Scenes


def test_pixels_of_digits_have_their_class():
    contents = Scenes(scenes=40, digits=2).open().read()
    assert (len(contents.train), len(contents.test)) == (32, 8)
    for row in contents.test:
        assert (row.image.shape, row.label.shape) == ((16, 16), (16, 16))
        assert 1 <= len(set(row.label[row.label > 0].tolist())) <= 2
        # Ink is bright, and the texture a third as bright at most.
        assert row.image[row.label > 0].min() >= 4 * 255 // 16
        assert row.image.max() > 200


def test_no_digit_is_in_training_and_test_scenes(tmp_path):
    digits = load_sets([Digits()], 8, cache_dir=tmp_path)
    # A digit alone in its scene, found again by its ink.
    contents = Scenes(scenes=60, digits=1).open().read()
    masks = {
        split: {(image >= 64).numpy().tobytes() for image in getattr(digits, split).images[:, 0]}
        for split in ("train", "test")
    }
    for split, rows in (("train", contents.train), ("test", contents.test)):
        for row in rows:
            ys, xs = np.nonzero(row.label)
            windows = [
                (row.label[top : top + 8, left : left + 8] > 0).astype(bool).tobytes()
                for top in range(max(0, ys.max() - 7), min(8, ys.min()) + 1)
                for left in range(max(0, xs.max() - 7), min(8, xs.min()) + 1)
            ]
            assert any(window in masks[split] for window in windows)


def test_a_set_has_a_class_for_each_pixel_in_any_size(tmp_path):
    data = load_sets([Scenes(scenes=20)], 16, cache_dir=tmp_path)
    assert (data.train.labels.shape, data.facts["positions"]) == ((16, 16, 16), [16, 16])
    assert data.classes[:3] == ("background", "0", "1")
    assert load_sets([Scenes(scenes=20)], 8, cache_dir=tmp_path).train.labels.shape == (16, 8, 8)
    with pytest.raises(ArgumentError, match="classes: must be null where each pixel has a class"):
        load_sets([Scenes(scenes=20)], 16, classes=["0"], cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "argument"),
    [({"scenes": 5}, "scenes"), ({"size": 15}, "size"), ({"digits": 5}, "digits"), ({"seed": -1}, "seed")],
)
def test_arguments_out_of_range_are_refused(options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        Scenes(**options)
