import math

import pytest
import torch

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses.blind_gate import blind_gate


def test_a_constant_gate_has_no_input_dependence():
    found = blind_gate(Examination("gate", RoutedRows(torch.tensor([[0.7, 0.2, 0.1]]).expand(300, 3))))
    assert found is not None
    assert found.effect == pytest.approx(0, abs=1e-12)


def test_a_perfect_partition_has_all_of_it():
    weights = torch.eye(4).repeat(50, 1)
    gate = Examination("gate", RoutedRows(weights))
    assert blind_gate(gate) is None


def test_the_figure_is_the_mutual_information_of_row_and_expert():
    first, second = torch.tensor([0.5, 0.5]), torch.tensor([0.49, 0.51])
    rows = torch.stack([first, second]).repeat(500, 1)
    found = blind_gate(Examination("gate", RoutedRows(rows)))
    assert found is not None

    def entropy(p):
        return -sum(float(q) * math.log(float(q)) for q in p)

    expected = entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
    assert found.effect * math.log(2) == pytest.approx(expected, rel=1e-4)


def test_a_selection_that_depends_on_the_row_is_not_blind_however_flat_the_scores():
    probs = torch.full((400, 2), 0.5)
    probs[::2] += torch.tensor([1e-4, -1e-4])
    weights = torch.nn.functional.one_hot(probs.argmax(1) ^ (torch.arange(400) % 2), 2).float()
    assert blind_gate(Examination("gate", RoutedRows(weights, probs, k=1))) is None


def test_a_gate_that_is_made_even_is_not_accused():
    assert blind_gate(Examination("gate", RoutedRows(torch.full((300, 3), 1 / 3)), decides=False)) is None
