import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.erase import Erase


def find_rectangles(erased, value=0.0):
    """Height, width, top and left of each row's erased pixels, which must be one rectangle, equal in all channels."""
    is_erased = erased == value
    mask = is_erased[:, 0]
    assert (is_erased == mask[:, None]).all()
    rows, columns = mask.any(2), mask.any(1)
    height, width = rows.sum(1), columns.sum(1)
    assert torch.equal(mask.sum((1, 2)), height * width)
    return height, width, rows.int().argmax(1), columns.int().argmax(1)


def test_areas_lie_in_the_interval():
    torch.manual_seed(0)
    height, width, _, _ = find_rectangles(Erase(chance=1, low=0.1, high=0.3)(torch.ones(2000, 3, 40, 40)))
    area = (height * width) / 1600
    # Within the rounding of two sides to whole pixels.
    assert 0.085 < area.min() < 0.11
    assert 0.29 < area.max() < 0.32
    assert abs(area.mean() - 0.2) < 0.01


def test_tall_rectangles_are_as_frequent_as_wide_ones():
    torch.manual_seed(0)
    height, width, _, _ = find_rectangles(Erase(chance=1, low=0.1, high=0.1)(torch.ones(2000, 1, 40, 40)))
    ratio = height / width
    assert 0.27 < ratio.min() < 0.34
    assert 1 / 0.34 < ratio.max() < 1 / 0.27
    assert ratio.log().mean().abs() < 0.05


def test_positions_are_equally_frequent():
    torch.manual_seed(0)
    erased = 1 - Erase(chance=1, low=0, high=0)(torch.ones(9000, 1, 3, 3))
    assert (erased.sum((0, 1)) - 1000).abs().max() < 120


def test_chance_and_value():
    torch.manual_seed(0)
    changed = Erase(chance=0.25, low=0.2, high=0.2, value=0.5)(torch.ones(4000, 1, 8, 8))
    is_erased = (changed != 1).flatten(1).any(1)
    assert abs(is_erased.double().mean() - 0.25) < 0.03
    assert changed.unique().tolist() == [0.5, 1.0]


@pytest.mark.parametrize(("arguments", "argument"), [({"low": 0.5, "high": 0.1}, "low"), ({"value": 2}, "value")])
def test_invalid_arguments_are_refused(arguments, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: "):
        Erase(**arguments)
