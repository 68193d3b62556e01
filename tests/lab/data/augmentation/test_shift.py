import numpy as np
import pytest
import torch
from scipy import ndimage

from moebius.kit.errors import ArgumentError
from moebius.lab.data.augmentation.shift import Shift

SIZE = 20


def make_ramps(rows):
    """Two channels whose values are the position of a pixel, and one of noise."""
    position = torch.arange(SIZE, dtype=torch.float64) / SIZE
    across, down = position.expand(SIZE, SIZE), position[:, None].expand(SIZE, SIZE)
    noise = torch.rand(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.stack([across, down, noise]).expand(rows, -1, -1, -1)


def measure_shifts(shifted):
    """Shift of each row to the right and down, in pixels, from the values at the centre of the ramps."""
    middle = SIZE // 2
    return (middle - shifted[:, :2, middle, middle] * SIZE).numpy()


def test_a_bright_column_moves_as_a_whole_and_the_border_is_repeated():
    """A shift of 1 1 0 0 … 0 by a is dark from column 2 + a on; new columns on the left repeat the first column."""
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
    """Keras calls this function with order 1."""
    torch.manual_seed(0)
    images = make_ramps(12)
    shifted = Shift(fraction=0.2)(images)
    for row, (right, down) in enumerate(measure_shifts(shifted)):
        expected = ndimage.shift(images[row, 2].numpy(), (down, right), order=1, mode="nearest")
        np.testing.assert_allclose(shifted[row, 2].numpy(), expected, atol=1e-5)


def test_shifts_fill_their_interval_independently_on_both_axes():
    torch.manual_seed(0)
    shifts = measure_shifts(Shift(fraction=0.1)(make_ramps(2000)))
    assert np.abs(shifts).max() <= 2 + 1e-6
    np.testing.assert_allclose(shifts.min(0), -2, atol=0.02)
    np.testing.assert_allclose(shifts.max(0), 2, atol=0.02)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.1
    np.testing.assert_allclose(shifts.std(0), 4 / 12**0.5, rtol=0.05)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, float("nan")])
def test_a_fraction_outside_0_and_1_is_refused(fraction):
    with pytest.raises(ArgumentError, match="fraction: needs a number"):
        Shift(fraction=fraction)
