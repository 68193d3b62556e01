import torch

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses.redundant_experts import redundant_experts


def examine(*outputs):
    outputs = torch.stack(outputs, 1)
    return redundant_experts(Examination("gate", RoutedRows(torch.ones(outputs.shape[:2])), outputs=outputs))


def test_equal_experts_are_named_and_others_are_not():
    first, second = torch.randn(2, 500, 3, generator=torch.Generator().manual_seed(0))
    found = examine(first, second, first + 0.01)
    assert found.experts == (0, 2)
    assert found.effect > 0.99
    assert examine(first, second, -first) is None


def test_a_scaled_copy_is_no_copy():
    outputs = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert examine(outputs, 3 * outputs) is None


def test_classes_that_experts_do_not_know_are_compared_as_well():
    known = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    fill = torch.full((300, 2), -torch.inf)
    left, right = torch.cat([known, fill], 1), torch.cat([fill, known], 1)
    assert examine(left, right) is None
    assert examine(left, left, right).experts == (0, 1)
