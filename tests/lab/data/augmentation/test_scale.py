import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.scale import Scale


def test_a_factor_of_two_doubles_distances():
    """On 0, 1/4, 1/2, 3/4, 1 about the centre 1/2, distances double: 0.5 − 0.5/2 = 0.25 is at the left end."""
    ramp = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).expand(1, 1, 5, 5)
    expected = torch.tensor([0.25, 0.375, 0.5, 0.625, 0.75]).expand(1, 1, 5, 5)
    torch.testing.assert_close(Scale(low=2, high=2)(ramp), expected)
    torch.testing.assert_close(Scale(low=2, high=2)(ramp.mT), expected.mT)


def test_a_factor_of_a_half_repeats_the_border():
    ramp = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).expand(1, 1, 5, 5)
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]).expand(1, 1, 5, 5)
    torch.testing.assert_close(Scale(low=0.5, high=0.5)(ramp), expected)


def test_factors_fill_their_interval_and_are_equal_in_both_directions():
    torch.manual_seed(0)
    position = torch.linspace(-1, 1, 21)
    images = (
        torch.stack([position.expand(21, 21), position[:, None].expand(21, 21)]).expand(2000, -1, -1, -1) * 0.2 + 0.5
    )
    scaled = Scale(low=0.8, high=1.25)(images)
    step = torch.stack([scaled[:, 0, 10, 11], scaled[:, 1, 11, 10]], 1) - 0.5
    factor = 0.02 / step
    torch.testing.assert_close(factor[:, 0], factor[:, 1], atol=1e-3, rtol=0)
    torch.testing.assert_close(factor.amin(), torch.tensor(0.8), atol=0.005, rtol=0)
    torch.testing.assert_close(factor.amax(), torch.tensor(1.25), atol=0.005, rtol=0)


@pytest.mark.parametrize(("low", "high", "argument"), [(0, 1, "low"), (1.2, 0.8, "low"), (1, float("inf"), "high")])
def test_invalid_factors_are_refused(low, high, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        Scale(low=low, high=high)
