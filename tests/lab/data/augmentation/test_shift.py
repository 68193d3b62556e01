import numpy as np
import pytest
import torch
from scipy import ndimage

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.shift import Shift

SIZE = 20


def ramps(rows):
    """Two channels that say where a pixel is from, and one of noise."""
    place = torch.arange(SIZE, dtype=torch.float64) / SIZE
    across, down = place.expand(SIZE, SIZE), place[:, None].expand(SIZE, SIZE)
    noise = torch.rand(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.stack([across, down, noise]).expand(rows, -1, -1, -1)


def offsets(shifted):
    """How far each row went, right and down, in pixels, read off the ramps' middle."""
    middle = SIZE // 2
    return (middle - shifted[:, :2, middle, middle] * SIZE).numpy()


def test_a_bright_column_moves_as_a_whole_and_the_border_is_repeated():
    """1 1 0 0 … 0 is dark from the column 2 + a on, and what comes in on its left is as bright as the first column."""
    torch.manual_seed(0)
    images = torch.zeros(200, 1, 4, 10)
    images[..., :2] = 1
    row = Shift(fraction=0.2)(images)[:, 0, 0]
    assert torch.equal(row[:, 0] > 1 - 1e-6, row[:, :2].sum(1) > 1 - 1e-6)
    lit = row.sum(1)
    # 2 + a of the columns are bright, a ~ U(−2, 2).
    assert 0 <= lit.min() < 0.3
    assert 3.7 < lit.max() <= 4
    assert abs(lit.mean() - 2) < 0.25
    # All but one column are fully bright or fully dark.
    assert (((row > 1e-5) & (row < 1 - 1e-5)).sum(1) <= 1).all()


def test_is_scipys_linear_shift_with_nearest_fill():
    """Which Keras calls with order 1."""
    torch.manual_seed(0)
    images = ramps(12)
    shifted = Shift(fraction=0.2)(images)
    for row, (right, down) in enumerate(offsets(shifted)):
        expected = ndimage.shift(images[row, 2].numpy(), (down, right), order=1, mode="nearest")
        np.testing.assert_allclose(shifted[row, 2].numpy(), expected, atol=1e-5)


def test_goes_as_far_as_it_says_in_both_directions_and_both_axes_alone():
    torch.manual_seed(0)
    moved = offsets(Shift(fraction=0.1)(ramps(2000)))
    assert np.abs(moved).max() <= 2 + 1e-6
    np.testing.assert_allclose(moved.min(0), -2, atol=0.02)
    np.testing.assert_allclose(moved.max(0), 2, atol=0.02)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.1
    np.testing.assert_allclose(moved.std(0), 4 / 12**0.5, rtol=0.05)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(ArgumentError, match="fraction: needs a number"):
        Shift(fraction=fraction)
