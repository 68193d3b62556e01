import math

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.rotate import Rotate

SIZE = 41


def measure_spot(rotated):
    """Angle in degrees, and distance in pixels, of the bright spot from the centre; it lay to the right of it."""
    position = torch.arange(SIZE, dtype=torch.float64) - SIZE // 2
    mass = rotated[:, 0] / rotated[:, 0].sum((1, 2), keepdim=True)
    right, down = (mass.sum(1) * position).sum(1), (mass.sum(2) * position).sum(1)
    return torch.atan2(-down, right) * 180 / math.pi, torch.hypot(right, down)


def test_a_spot_keeps_its_distance_to_the_centre_and_its_angle_is_in_the_interval():
    torch.manual_seed(0)
    images = torch.zeros(1000, 1, SIZE, SIZE, dtype=torch.float64)
    images[..., 19:22, 30:33] = 1
    angle, distance = measure_spot(Rotate(degrees=30)(images))
    torch.testing.assert_close(distance, torch.full_like(distance, 11.0), atol=0.15, rtol=0)
    assert angle.abs().max() <= 30.5
    assert angle.max() > 28
    assert angle.min() < -28
    assert angle.mean().abs() < 1.5


def test_a_round_image_is_not_changed():
    position = (torch.arange(SIZE) - SIZE // 2) / SIZE
    bowl = position.square() + position.square()[:, None]
    rotated = Rotate(degrees=180)(bowl.expand(20, 1, -1, -1))
    inside = bowl < 0.2
    torch.testing.assert_close(rotated[..., inside], bowl[inside].expand(20, 1, -1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("degrees", [-1, 181])
def test_an_angle_outside_0_and_180_is_refused(degrees):
    with pytest.raises(ArgumentError, match="degrees: needs a number"):
        Rotate(degrees=degrees)
