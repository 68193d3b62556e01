import numpy as np
import pytest

from moebius.lab.diagnostics import Load


def test_worked_literal(make_rows):
    frame = Load.of(make_rows([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.5, 0.5]]))
    assert frame["load"].tolist() == [0.375, 0.625]
    assert frame["importance"].tolist() == pytest.approx([0.35, 0.65])
    assert frame["null"].tolist() == [0.5, 0.5]


def test_a_uniform_gate_loads_all_alike(make_rows):
    assert Load.of(make_rows(np.full((7, 4), 0.25)))["load"].tolist() == [0.25] * 4


def test_of_a_hard_gate_equals_its_importance_and_its_use(make_rows):
    frame = Load.of(make_rows(np.eye(4)[np.random.default_rng(0).integers(0, 4, 50)]))
    assert frame["load"].tolist() == frame["importance"].tolist() == frame["used"].tolist()


def test_agrees_with_a_loop_that_divides_ties(make_rows):
    weights = np.random.default_rng(0).integers(0, 4, (300, 5)).astype(np.float32)
    wins = np.zeros(5)
    for row in weights:
        best = np.flatnonzero(row == row.max())
        wins[best] += 1 / len(best)
    frame = Load.of(make_rows(weights))
    np.testing.assert_allclose(frame["load"], wins / 300)
    np.testing.assert_allclose(frame["used"], (weights != 0).mean(0))
    assert ((frame["low"] <= frame["load"]) & (frame["load"] <= frame["high"])).all()


def test_the_interval_covers_the_true_load_in_95_of_100(make_rows):
    random = np.random.default_rng(0)
    frames = [Load.of(make_rows(np.eye(2)[(random.random(200) < 0.1).astype(int)])) for _ in range(400)]
    covered = np.mean([frame["low"][1] <= 0.1 <= frame["high"][1] for frame in frames])
    assert 0.92 < covered < 0.98
