import pytest
import torch
from scipy import ndimage

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.blur import Blur


def test_is_scipys_gaussian_filter():
    image = torch.rand(12, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(ndimage.gaussian_filter(image.numpy(), 1.0, mode="nearest", radius=3))
    torch.testing.assert_close(Blur(chance=1, low=1, high=1)(image[None, None])[0, 0], expected, atol=1e-6, rtol=0)


def test_a_constant_image_stays_and_a_larger_sigma_leaves_less_contrast():
    constant = torch.full((4, 3, 8, 8), 0.7)
    torch.testing.assert_close(Blur(chance=1)(constant), constant)
    images = torch.rand(4, 3, 16, 16)
    contrasts = [Blur(chance=1, low=sigma, high=sigma)(images).std() for sigma in (0.3, 0.6, 1.2, 2.4)]
    assert sorted(contrasts, reverse=True) == contrasts


def test_the_share_of_blurred_rows_is_the_chance():
    torch.manual_seed(0)
    images = torch.rand(2000, 1, 6, 6)
    is_unchanged = (Blur(chance=0.25, low=0.5)(images) == images).flatten(1).all(1)
    assert abs(is_unchanged.double().mean() - 0.75) < 0.04


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1)])
def test_invalid_sigmas_are_refused(low, high):
    with pytest.raises(ArgumentError, match=r"^low: "):
        Blur(low=low, high=high)
