import numpy as np
import pytest

from moebius.lab.diagnostics import Counterfactuals


def test_agrees_with_a_loop_over_pairs(make_rows):
    random = np.random.default_rng(0)
    weights, losses = random.dirichlet([0.5] * 4, 300), random.exponential(1, (300, 4)).astype(np.float32)
    frame = Counterfactuals.of(make_rows(weights, expert_losses=losses)).set_index(["expert", "other"])
    assert len(frame) == 12
    for (expert, other), line in frame.iterrows():
        chosen = weights.argmax(1) == expert
        difference = (losses[:, expert] - losses[:, other]).astype(float)
        assert line["rows"] == chosen.sum()
        assert line["difference"] == pytest.approx(difference[chosen].mean(), abs=1e-6)
        assert line["null"] == pytest.approx(difference.mean(), abs=1e-6)
        width = 2 * 1.99 * difference[chosen].std(ddof=1) / chosen.sum() ** 0.5
        assert line["high"] - line["low"] == pytest.approx(width, rel=0.02)


def test_an_expert_that_wins_nothing_has_no_lines(make_rows):
    frame = Counterfactuals.of(make_rows([[1.0, 0.0, 0.0]], expert_losses=[[1.0, 2.0, 3.0]]))
    assert frame["expert"].tolist() == [0, 0]
    assert frame["difference"].tolist() == [-1, -2]


def test_under_a_gate_that_does_not_know_the_rows_the_difference_is_its_null(make_rows):
    random = np.random.default_rng(1)
    losses = random.exponential([1, 2], (4000, 2))
    weights = np.eye(2)[random.integers(0, 2, 4000)]
    frame = Counterfactuals.of(make_rows(weights, expert_losses=losses))
    assert ((frame["low"] <= frame["null"]) & (frame["null"] <= frame["high"])).all()
    assert frame["null"].tolist() == pytest.approx([-1, 1], abs=0.15)
