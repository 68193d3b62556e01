"""Each check of augmentations finds the augmentation that breaks it."""

import numpy as np
import pytest
import torch

from moebius.lab.data.augmentation import Flip, Noise
from moebius.lab.data.augmentation._augmentation import Augmentation
from moebius.testing.augmentation import CHECKS


class Forgets(Noise):
    def __init__(self, std: float = 0.05):
        super().__init__(std)
        self.doubled = 2 * std
        del self.std


class Smaller(Flip):
    def __call__(self, images):
        return super().__call__(images)[..., 1:]


class NeedsFourPixels(Flip):
    def __call__(self, images):
        images = super().__call__(images)
        return images if min(images.shape[-2:]) >= 4 else images / 0


class InPlace(Flip):
    def __call__(self, images):
        images.fill_(0.5)
        return images.clone()


class Nothing(Flip):
    def change(self, images):
        return images


class OneDraw(Augmentation):
    def change(self, images):
        return images * torch.rand(())


class ByOthers(Augmentation):
    def change(self, images):
        return images - images.mean()


class Dark(Flip):
    def change(self, images):
        return images / 2


class Kept(Noise):
    """Keeps the last draw."""

    last = None

    def change(self, images):
        if self.last is None:
            self.last = torch.rand_like(images)
        return images * self.last


class ByNumpy(Flip):
    def change(self, images):
        return images * np.random.rand()  # noqa: NPY002


class Contiguous(Flip):
    def __call__(self, images):
        return super().__call__(images).contiguous()


class ByPrecision(Flip):
    def __call__(self, images):
        return super().__call__(images) / (2 if images.dtype == torch.float64 else 1)


class WithGradient(Flip):
    def __call__(self, images):
        return images * torch.rand(len(images), 1, 1, 1)


class TakesBytes(Flip):
    def __call__(self, images):
        return images


class Squares:
    """Changes what it gave before."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return images / self.calls


BROKEN = {
    "is_an_augmentation_that_keeps_its_arguments": (Forgets, r"keeps no attributes of its arguments \['std'\]"),
    "keeps_shape_dtype_and_range": (Smaller, r"images of shape \(6, 1, 12, 9\), needs \(6, 1, 12, 10\)"),
    "takes_tiny_images": (NeedsFourPixels, r"pixels that are not finite for images of \(1, 1\)"),
    "leaves_its_input_as_it_was": (InPlace, "changes its input in place"),
    "changes_something": (Nothing, "changes nothing"),
    "draws_for_each_row": (OneDraw, "draws once for all rows"),
    "changes_a_row_whatever_stands_beside_it": (ByOthers, "changes an image by the images beside it"),
    "changes_nothing_by_an_amount_of_zero": (Dark, r"changes images by \{'chance': 0.0\}"),
    "draws_the_same_from_the_same_state": (Kept, "draws nothing from torch's generator"),
    "draws_from_no_other_generator": (ByNumpy, "draws from NumPy's generator"),
    "keeps_the_memory_format": (Contiguous, "changes the memory format"),
    "draws_the_same_in_any_precision": (ByPrecision, "changes images in torch.float64 in another way"),
    "passes_no_gradient": (WithGradient, "passes a gradient to the images"),
    "refuses_bytes": (TakesBytes, "takes images of bytes and raises nothing"),
    "follows_another_in_a_sequence": (Squares, "gives other images in a sequence"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_augmentation_is_named(breaks, name):
    breaks(CHECKS, name, "data.augmentation", *BROKEN[name])
