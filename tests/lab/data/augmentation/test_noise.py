import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.noise import Noise


def test_noise_is_normal_with_the_standard_deviation():
    torch.manual_seed(0)
    noise = Noise(std=0.1)(torch.full((50, 3, 20, 20), 0.5)) - 0.5
    assert abs(noise.std() - 0.1) < 0.002
    assert noise.mean().abs() < 0.002
    assert abs((noise.abs() < 0.1).float().mean() - 0.6827) < 0.01


def test_half_of_the_noise_on_black_is_clamped():
    torch.manual_seed(0)
    assert abs((Noise(std=0.1)(torch.zeros(50, 1, 20, 20)) == 0).float().mean() - 0.5) < 0.02


def test_a_negative_standard_deviation_is_refused():
    with pytest.raises(ArgumentError, match="std: needs a number of at least 0"):
        Noise(std=-0.1)
