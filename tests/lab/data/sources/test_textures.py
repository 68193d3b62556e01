import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from moebius.kit.errors import ArgumentError
from moebius.lab.data import load_sets
from moebius.lab.data.sources.textures import CLASSES, Textures, draw_texture

DIGEST = "8ee3499187901492441293fb97c9fdabd86612803b10708983e9d8f992214007"


def test_the_bits_are_the_same_on_any_machine():
    digest = hashlib.sha256()
    for name in CLASSES:
        digest.update(draw_texture(name, 50, 8, 0).tobytes())
    assert digest.hexdigest() == DIGEST


def test_seed_and_class_change_every_image():
    images = [draw_texture(name, 5, 8, seed) for name in CLASSES for seed in (0, 1)]
    assert len({image.tobytes() for group in images for image in group}) == 100


def test_more_rows_do_not_change_what_a_texture_is():
    """Means over many images of one class agree between seeds, and differ between classes."""
    draws = (("ramp", 0), ("ramp", 1), ("blob", 0))
    ramp, second_ramp, blob = (draw_texture(name, 2000, 8, seed).mean(0) for name, seed in draws)
    assert np.abs(ramp - second_ramp).max() < 8
    assert np.abs(ramp - blob).max() > 40


def test_splits_are_balanced(tmp_path):
    data = load_sets([Textures(20, size=12, share=0.25)], 12, cache_dir=tmp_path)
    assert data.classes == CLASSES
    assert data.train.labels.bincount().tolist() == [15] * 10
    assert data.test.labels.bincount().tolist() == [5] * 10
    assert data.facts["size"] == 12


def test_a_linear_classifier_is_far_from_chance_and_far_from_right(tmp_path):
    data = load_sets([Textures()], 8, cache_dir=tmp_path)
    x, test = (split.images.flatten(1).numpy() / 255.0 for split in (data.train, data.test))
    accuracy = (
        LogisticRegression(C=0.1, max_iter=300).fit(x, data.train.labels.numpy()).score(test, data.test.labels.numpy())
    )
    assert 0.4 < accuracy < 0.7


@pytest.mark.parametrize(("argument", "value"), [("rows_per_class", 1), ("size", 3), ("seed", -1), ("share", 1.0)])
def test_numbers_out_of_range_are_refused(argument, value):
    with pytest.raises(ArgumentError, match=argument):
        Textures(**{argument: value})
