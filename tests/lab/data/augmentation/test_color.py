import colorsys

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.color import Color

WEIGHTS = torch.tensor([0.299, 0.587, 0.114])


def make_color(**amounts):
    """`Color` whose other amounts are 0."""
    return Color(**{"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, **amounts})


def random_images(rows=300):
    """Colours far from 0 and 1, so that no value is clamped."""
    return 0.4 + 0.2 * torch.rand(rows, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_brightness_is_a_factor_of_the_whole_image():
    factor = make_color(brightness=0.5)(random_images()) / random_images()
    torch.testing.assert_close(factor, factor[:, :1, :1, :1].expand_as(factor))
    assert 0.5 <= factor.amin() < 0.52
    assert 1.48 < factor.amax() <= 1.5


def test_contrast_is_about_the_mean_of_the_grey_image():
    images = random_images()
    mean = (images * WEIGHTS[:, None, None]).sum(1).mean((1, 2))[:, None, None, None]
    factor = (make_color(contrast=0.5)(images) - mean) / (images - mean)
    median = factor.flatten(1).median(1).values
    assert 0.5 <= median.amin() < 0.52
    assert 1.48 < median.amax() <= 1.5


def test_saturation_keeps_the_grey_image_and_hue_the_extremes_of_the_channels():
    images = random_images()
    grey = (images * WEIGHTS[:, None, None]).sum(1)
    changed = make_color(saturation=0.9)(images)
    torch.testing.assert_close((changed * WEIGHTS[:, None, None]).sum(1), grey)
    rotated = make_color(hue=0.5)(images)
    torch.testing.assert_close(rotated.amax(1), images.amax(1))
    torch.testing.assert_close(rotated.amin(1), images.amin(1))


def test_hue_is_a_share_of_the_circle():
    torch.manual_seed(0)
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1000, -1, -1, -1)
    hues = torch.tensor([colorsys.rgb_to_hsv(*pixel)[0] for pixel in make_color(hue=0.1)(red)[:, :, 0, 0].tolist()])
    rotated = (hues + 0.5) % 1 - 0.5
    assert rotated.abs().max() <= 0.1 + 1e-6
    assert rotated.max() > 0.098
    assert rotated.min() < -0.098


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_grey_images_have_no_colours_to_change(name):
    with pytest.raises(ArgumentError, match=rf"^{name}: must be 0 for grey images, got 0.1\n  fix: {name}: 0"):
        make_color(**{name: 0.1})(torch.rand(2, 1, 4, 4))
    assert Color()(torch.rand(2, 1, 4, 4)).shape == (2, 1, 4, 4)


def test_invalid_arguments_are_refused():
    with pytest.raises(ArgumentError, match=r"hue: needs at most 0\.5"):
        Color(hue=0.6)
    with pytest.raises(ArgumentError, match="brightness: needs a number between 0 and 1"):
        Color(brightness=2)
    with pytest.raises(ArgumentError, match="images: need 1 channel"):
        Color()(torch.rand(2, 4, 4, 4))
