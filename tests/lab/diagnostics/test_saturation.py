import numpy as np
import pytest

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics import Saturation


def choose(random, rows, experts, k):
    weights = np.zeros((rows, experts), np.float32)
    np.put_along_axis(weights, random.random((rows, experts)).argsort(1)[:, :k], 1 / k, 1)
    return weights


def test_agrees_with_a_loop_over_rows(make_rows):
    random = np.random.default_rng(0)
    early, late = choose(random, 100, 6, 2), choose(random, 100, 6, 2)
    shares = [len({*np.flatnonzero(a)} & {*np.flatnonzero(b)}) / 2 for a, b in zip(early, late, strict=True)]
    line = Saturation.of(make_rows(early, k=2), make_rows(late, k=2)).iloc[0]
    assert line["saturation"] == pytest.approx(np.mean(shares))
    assert line["null"] == pytest.approx(2 / 6)
    assert line["low"] < line["saturation"] < line["high"]


@pytest.mark.parametrize(("experts", "k"), [(4, 1), (16, 4)])
def test_random_routers_have_what_the_null_says(make_rows, experts, k):
    random = np.random.default_rng(1)
    rows = [make_rows(choose(random, 4000, experts, k), k=k) for _ in range(2)]
    line = Saturation.of(*rows).iloc[0]
    assert line["low"] < line["null"] < line["high"]
    assert line["permuted_null"] == pytest.approx(line["null"], abs=0.01)


def test_collapsed_gates_agree_by_their_loads_alone(make_rows):
    rows = make_rows(np.tile([1.0, 0, 0, 0], (20, 1)), k=1)
    line = Saturation.of(rows, rows).iloc[0]
    assert line[["saturation", "permuted_null", "null"]].tolist() == [1, 1, 0.25]


def test_of_dense_gates_the_largest_weights_count(make_rows):
    rows = make_rows([[0.6, 0.4], [0.3, 0.7]]), make_rows([[0.9, 0.1], [0.6, 0.4]])
    assert Saturation.of(*rows)["saturation"].tolist() == [0.5]


def test_other_rows_are_refused(make_rows):
    with pytest.raises(
        ArgumentError, match="others: needs the rows and experts of the first routing, 2 × 2, got '1 × 2'"
    ):
        Saturation.of(make_rows(np.eye(2)), make_rows(np.eye(2)[:1]))
