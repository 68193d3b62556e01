import numpy as np
import pytest

from moebius.lab.diagnostics.load import load


def test_worked_literal():
    frame = load(np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.5, 0.5]], dtype=np.float32))
    assert frame["load"].tolist() == [0.375, 0.625]
    assert frame["importance"].tolist() == pytest.approx([0.35, 0.65])


def test_a_uniform_gate_loads_all_alike():
    assert load(np.full((7, 4), 0.25))["load"].tolist() == [0.25] * 4


def test_of_a_hard_gate_equals_its_importance():
    weights = np.eye(4)[np.random.default_rng(0).integers(0, 4, 50)]
    frame = load(weights)
    assert frame["load"].tolist() == frame["importance"].tolist()
