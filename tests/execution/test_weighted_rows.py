"""Sums of rows: in any order of the rows, with gaps, and not in the narrow format of the values."""

import pytest
import torch

from moebius.execution._weighted_rows import sum_by_row


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [True, False])
def test_sums_are_those_of_a_loop(rows, dtype, weighted):
    torch.manual_seed(0)
    row_P = torch.randint(0, rows, (9,)).clamp(max=max(rows - 2, 0))  # the last of several rows has none
    values, weights = torch.randn(9, 3).to(dtype), torch.rand(9).to(dtype)
    expected = torch.zeros(rows, 3, dtype=torch.float64)
    for row, value, weight in zip(row_P, values, weights, strict=True):
        expected[row] += value.double() * (weight.double() if weighted else 1)
    result = sum_by_row(values, row_P, weights if weighted else None, rows)
    assert result.dtype == dtype
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rows", [1, 2])
def test_many_values_of_bf16_are_not_summed_in_bf16(weighted, rows):
    """A sum in bf16 stops at 256: 257 is no number of it."""
    values = torch.ones(1024, 8, dtype=torch.bfloat16)
    weights = torch.ones(1024) if weighted else None
    assert sum_by_row(values, torch.zeros(1024, dtype=torch.long), weights, rows)[0].tolist() == [1024.0] * 8


def test_nothing_is_summed_to_zeros():
    assert (
        sum_by_row(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0), 2).tolist() == [[0.0] * 3] * 2
    )
