import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.noise import Noise


def test_noise_is_as_strong_as_it_says_and_centred():
    torch.manual_seed(0)
    noise = Noise(std=0.1)(torch.full((50, 3, 20, 20), 0.5)) - 0.5
    assert abs(noise.std() - 0.1) < 0.002
    assert noise.mean().abs() < 0.002
    assert abs((noise.abs() < 0.1).float().mean() - 0.6827) < 0.01


def test_half_of_the_noise_on_black_is_cut_off():
    torch.manual_seed(0)
    assert abs((Noise(std=0.1)(torch.zeros(50, 1, 20, 20)) == 0).float().mean() - 0.5) < 0.02


def test_negative_noise_is_none():
    with pytest.raises(ArgumentError, match="std: needs a number of at least 0"):
        Noise(std=-0.1)
