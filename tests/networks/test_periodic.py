import math

import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.networks.periodic import Periodic


def test_it_is_the_formula():
    encoding, x = Periodic(2, 3), torch.randn(4, 2)
    values = encoding(x).unflatten(-1, (2, 6))
    for row in range(4):
        for column in range(2):
            angles = [2 * math.pi * c * x[row, column] for c in encoding.weight[column]]
            expected = torch.stack([*map(torch.sin, angles), *map(torch.cos, angles)])
            torch.testing.assert_close(values[row, column], expected)


def test_frequencies_are_drawn_with_the_scale():
    torch.manual_seed(0)
    assert Periodic(50, 100, scale=0.5).weight.std().item() == pytest.approx(0.5, rel=0.05)
    assert Periodic(2, 3).weight.requires_grad


@pytest.mark.parametrize(("arguments", "name"), [((0, 2), "columns"), ((2, 0), "frequencies"), ((2, 2, 0.0), "scale")])
def test_numbers_out_of_range_are_refused(arguments, name):
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        Periodic(*arguments)
