"""Every augmentation keeps the contract of `moebius.testing.augmentation`; a new one is tested by being there."""

import pytest

from moebius.lab.data.augmentation._apply import apply_augmentations
from moebius.testing import cases
from moebius.testing.augmentation import make_images


@pytest.mark.parametrize(("name", "check"), cases("data.augmentation"))
def test_every_augmentation(name, check):
    check()


def test_no_augmentation_gives_the_images_themselves():
    images = make_images()
    assert apply_augmentations(images, []) is images
