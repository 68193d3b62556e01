import numpy as np
import pytest

from moebius.lab.diagnostics import Reap


def test_agrees_with_a_loop_over_experts(make_rows):
    random = np.random.default_rng(0)
    weights = random.dirichlet([1] * 4, 100).astype(np.float32)
    weights *= weights > 0.2
    outputs = random.normal(size=(100, 4, 3)).astype(np.float32)
    frame = Reap.of(make_rows(weights, outputs=outputs))
    norms = np.sqrt((outputs**2).sum(2))
    for expert, line in frame.set_index("expert").iterrows():
        runs = weights[:, expert] > 0
        product = weights[runs, expert] * norms[runs, expert]
        assert line["rows"] == runs.sum()
        assert line["reap"] == pytest.approx(product.mean(), rel=1e-5)
        assert line["null"] == pytest.approx(weights[runs, expert].mean() * norms[:, expert].mean(), rel=1e-5)
        assert line["low"] < line["reap"] < line["high"]


def test_an_expert_that_never_runs_has_no_line(make_rows):
    frame = Reap.of(make_rows([[1.0, 0.0]], outputs=np.ones((1, 2, 4))))
    assert frame[["expert", "reap"]].values.tolist() == [[0, 2]]


def test_of_weights_that_do_not_know_the_norms_the_score_is_its_null(make_rows):
    random = np.random.default_rng(1)
    frame = Reap.of(make_rows(random.dirichlet([1, 1], 3000), outputs=random.normal(size=(3000, 2, 3))))
    assert ((frame["low"] < frame["null"]) & (frame["null"] < frame["high"])).all()
