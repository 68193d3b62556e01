import pytest
import torch

from moebius.lab.illnesses.redundant_experts import concordance


def test_worked_literal():
    outputs = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]])
    # variances 1 and 1, distance of the means 1, E|f − g|² = 1: 1 − 1 / (1 + 1 + 1)
    assert concordance(outputs)[0, 1].item() == pytest.approx(2 / 3)


def test_independent_experts_have_about_none_and_opposite_ones_less():
    first, second = torch.randn(2, 5000, 3, generator=torch.Generator().manual_seed(0))
    agreement = concordance(torch.stack([first, second, -first], 1))
    assert abs(agreement[0, 1].item()) < 0.05
    assert agreement[0, 2].item() == pytest.approx(-1, abs=0.01)


def test_a_scaled_copy_is_no_copy():
    outputs = torch.randn(500, 1, 4, generator=torch.Generator().manual_seed(0))
    assert concordance(torch.cat([outputs, 3 * outputs], 1))[0, 1].item() < 0.7
