import numpy as np
import pytest

from moebius.lab.diagnostics import MaxViolation


def choose(random, rows, experts, k):
    weights = np.zeros((rows, experts), np.float32)
    np.put_along_axis(weights, random.random((rows, experts)).argsort(1)[:, :k], 1 / k, 1)
    return weights


def test_worked_literal(make_rows):
    measure = MaxViolation()
    measure.update(make_rows(np.eye(2)[[0, 0, 0, 1]], k=1))
    measure.update(make_rows(np.eye(2)[[1, 1]], k=1))
    frame = measure.frame().set_index("of")
    # Three rows each: no violation of the whole; the batches have 3 : 1 and 2 : 0.
    assert frame.loc["assignments", ["violation", "batch", "batches"]].tolist() == [0, (0.5 + 1) / 2, 2]


def test_all_rows_with_the_same_experts_is_the_largest(make_rows):
    weights = np.zeros((50, 8))
    weights[:, :2] = 0.5
    frame = MaxViolation.of(make_rows(weights, k=2)).set_index("of")
    assert frame.loc["assignments", "violation"] == 8 / 2 - 1


def test_a_gate_that_uses_all_experts_alike_has_none(make_rows):
    frame = MaxViolation.of(make_rows(np.full((10, 4), 0.25)))
    assert frame["violation"].tolist() == [0, 0, 0]
    assert frame.set_index("of").loc["assignments", "null"] == 0


@pytest.mark.parametrize(("rows", "experts", "k"), [(50, 4, 1), (50, 8, 2), (5000, 8, 2), (5000, 64, 8)])
def test_the_null_is_the_mean_of_random_balanced_routers(make_rows, rows, experts, k):
    random = np.random.default_rng(1)
    tables = [choose(random, rows, experts, k) for _ in range(40)]
    frames = [MaxViolation.of(make_rows(weights, k=k)).set_index("of").loc["assignments"] for weights in tables]
    values = np.array([frame["violation"] for frame in frames])
    assert values.mean() == pytest.approx(frames[0]["null"], abs=4 * values.std() / 40**0.5)
    assert np.mean(values > frames[0]["null_high"]) <= 0.1
