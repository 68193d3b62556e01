import numpy as np
import pytest
import torch

from moebius.lab.diagnostics import InputDependence, RoutedRows


def test_worked_literal(make_rows):
    frame = InputDependence.of(make_rows([[1.0, 0.0], [0.5, 0.5]]))
    marginal, row = -0.75 * np.log(0.75) - 0.25 * np.log(0.25), np.log(2) / 2
    expected = [marginal - row, (marginal - row) / np.log(2), marginal, row]
    assert frame[["information", "share", "marginal", "row"]].values[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("row", [[0.25] * 4, [0.7, 0.2, 0.05, 0.05]])
def test_a_blind_gate_has_none_however_it_is_balanced(make_rows, row):
    frame = InputDependence.of(make_rows(np.tile(row, (100, 1))))
    assert frame[["information", "low", "high"]].values[0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("experts", [2, 16])
def test_a_hard_and_balanced_gate_has_all(make_rows, experts):
    frame = InputDependence.of(make_rows(np.eye(experts)[np.arange(100 * experts) % experts]))
    assert frame["share"].item() == pytest.approx(1)


def test_reads_the_distribution_before_the_selection():
    probs, weights = torch.full((6, 3), 1 / 3), torch.eye(3).repeat(2, 1)
    assert InputDependence.of(RoutedRows(weights, probs))["information"].item() == pytest.approx(0, abs=1e-7)


def test_the_interval_is_that_of_the_rows_divergences(make_rows):
    p = np.random.default_rng(0).dirichlet([0.5] * 5, 300)
    divergence = (p * np.log(p / p.mean(0))).sum(1)
    frame = InputDependence.of(make_rows(p))
    assert frame["information"].item() == pytest.approx(divergence.mean())
    half = 1.96790 * divergence.std(ddof=1) / 300**0.5
    assert frame["high"].item() - frame["information"].item() == pytest.approx(half, rel=1e-4)
