import numpy as np
import pytest

from moebius.lab.diagnostics import Regret


def test_agrees_with_a_loop_over_rows(make_rows):
    random = np.random.default_rng(0)
    weights, losses = random.dirichlet([0.5] * 5, 200), random.exponential(1, (200, 5)).astype(np.float32)
    chosen = weights.argmax(1)
    regret = losses[np.arange(200), chosen] - losses.min(1)
    frame = Regret.of(make_rows(weights, expert_losses=losses)).set_index("expert")
    assert frame.loc[-1, "regret"] == pytest.approx(regret.mean(), rel=1e-5)
    assert frame.loc[-1, "share"] == (regret > 0).mean()
    excess = losses - losses.min(1, keepdims=True)
    loads = np.bincount(chosen, minlength=5) / 200
    assert frame.loc[-1, "null"] == pytest.approx(loads @ excess.mean(0), rel=1e-5)
    assert frame.loc[-1, "share_null"] == pytest.approx(loads @ (excess > 0).mean(0))
    for expert in range(5):
        assert frame.loc[expert, "regret"] == pytest.approx(regret[chosen == expert].mean(), rel=1e-5)
        assert frame.loc[expert, "null"] == pytest.approx(excess[:, expert].mean(), rel=1e-5)


def test_the_oracle_regrets_nothing(make_rows):
    losses = np.random.default_rng(0).random((50, 3))
    frame = Regret.of(make_rows(np.eye(3)[losses.argmin(1)], expert_losses=losses))
    assert frame["regret"].tolist() == [0] * len(frame)
    assert frame["null"].iloc[0] > 0


def test_a_permuted_gate_has_the_regret_of_the_null(make_rows):
    random = np.random.default_rng(0)
    losses = random.exponential(1, (5000, 4))
    weights = np.eye(4)[random.permutation(losses.argmin(1))]
    line = Regret.of(make_rows(weights, expert_losses=losses)).iloc[0]
    assert line["low"] < line["null"] < line["high"]
