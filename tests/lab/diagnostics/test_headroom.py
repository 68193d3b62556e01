import numpy as np
import pytest

from moebius.lab.diagnostics import Headroom


def draw(rows=500, experts=4, seed=0):
    random = np.random.default_rng(seed)
    weights = random.dirichlet([0.5] * experts, rows)
    losses = random.exponential(1, (rows, experts)).astype(np.float32)
    scores = (random.random((rows, experts)) < 0.4).astype(np.float32)
    return weights, losses, scores


def test_worked_literal(make_rows):
    rows = make_rows(
        [[0.9, 0.1], [0.2, 0.8]],
        losses=[1.0, 1.0],
        expert_losses=[[2.0, 0.0], [4.0, 2.0]],
        scores=[0, 1],
        expert_scores=[[0, 1], [0, 1]],
    )
    frame = Headroom.of(rows).set_index("choice")
    assert frame["loss"].tolist() == [1, 2, 1, 2, 1, 3, 1]
    assert frame["gain"].tolist() == [0, -1, 0, -1, 0, -2, 0]
    assert frame["score"].tolist() == [0.5, 0.5, 1, 0.5, 1, 0, 1]
    assert frame.loc["best expert", "expert"] == 1
    assert frame.loc["mixture", ["low", "high"]].tolist() == [0, 0]
    assert frame["null"].unique().tolist() == [-1]


def test_agrees_with_a_reference_that_is_paired_by_row(make_rows):
    weights, losses, scores = draw()
    mixture = (weights * losses).sum(1).astype(np.float32)
    rows = make_rows(weights, losses=mixture, expert_losses=losses, scores=scores[:, 0], expert_scores=scores)
    frame = Headroom.of(rows).set_index("choice")
    gain = mixture - losses.min(1)
    half = 1.96472 * gain.std(ddof=1) / 500**0.5
    expected = [losses.min(1).mean(), gain.mean(), gain.mean() - half, gain.mean() + half]
    assert frame.loc["oracle", ["loss", "gain", "low", "high"]].tolist() == pytest.approx(expected, rel=1e-5)
    assert frame.loc["oracle", "score"] == pytest.approx(scores.max(1).mean())
    chosen = losses[np.arange(500), weights.argmax(1)]
    assert frame.loc["gate", "loss"] == pytest.approx(chosen.mean())
    assert frame.loc["uniform", "gain"] == pytest.approx((mixture - losses.mean(1)).mean())


def test_no_choice_of_one_expert_is_ahead_of_the_oracle(make_rows):
    weights, losses, _ = draw(seed=1)
    frame = Headroom.of(make_rows(weights, losses=losses[:, 0], expert_losses=losses)).set_index("choice")
    assert (frame.loc["oracle", "gain"] >= frame["gain"]).all()
    assert "score" not in frame


def test_one_expert_has_no_headroom(make_rows):
    frame = Headroom.of(make_rows(np.ones((5, 1)), losses=np.arange(5), expert_losses=np.arange(5)[:, None]))
    assert frame["gain"].abs().max() == 0
