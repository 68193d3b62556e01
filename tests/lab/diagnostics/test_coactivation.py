import numpy as np
import pytest

from moebius.lab.diagnostics import Coactivation


def choose(random, rows, experts, k):
    weights = np.zeros((rows, experts), np.float32)
    np.put_along_axis(weights, random.random((rows, experts)).argsort(1)[:, :k], 1 / k, 1)
    return weights


def test_agrees_with_a_loop_over_pairs(make_rows):
    weights = choose(np.random.default_rng(0), 200, 5, 3)
    frame = Coactivation.of(make_rows(weights, k=3)).set_index(["expert", "other"])
    assert len(frame) == 20
    for (expert, other), line in frame.iterrows():
        runs, both = (weights[:, expert] > 0).sum(), ((weights[:, expert] > 0) & (weights[:, other] > 0)).sum()
        assert line[["rows", "both", "share"]].tolist() == [runs, both, pytest.approx(both / runs)]


def test_a_random_balanced_router_is_its_null(make_rows):
    frame = Coactivation.of(make_rows(choose(np.random.default_rng(1), 3000, 8, 2), k=2))
    assert frame["null"].unique().tolist() == [pytest.approx(1 / 7)]
    assert np.mean((frame["low"] <= frame["null"]) & (frame["null"] <= frame["high"])) > 0.85


def test_experts_that_are_always_together(make_rows):
    weights = np.tile([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], (50, 1))
    frame = Coactivation.of(make_rows(weights, k=2)).set_index(["expert", "other"])["share"]
    assert (frame[0, 1], frame[0, 2], frame[3, 2]) == (1, 0, 1)


def test_where_the_number_of_experts_varies_the_null_is_of_as_many(make_rows):
    random = np.random.default_rng(2)
    weights = np.vstack([choose(random, 4000, 6, k) for k in (1, 4)])
    frame = Coactivation.of(make_rows(weights, k=4))
    assert frame["share"].mean() == pytest.approx(frame["null"][0], abs=0.01)
    assert frame["null"][0] == pytest.approx((4 * 3) / (5 * (1 + 4)))
