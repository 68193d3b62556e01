import itertools

import numpy as np
import pytest

from moebius.lab.diagnostics import Stability


def test_renumbered_experts_agree_whole(make_rows):
    best, order = np.random.default_rng(0).integers(0, 5, 200), np.array([3, 0, 4, 1, 2])
    frame = Stability.of(make_rows(np.eye(5)[best]), make_rows(np.eye(5)[order[best]]))
    assert frame["agreement"].tolist() == [1] * 6
    assert frame.set_index("expert")["other"].drop(-1).to_dict() == dict(enumerate(order))


def test_the_matching_is_the_best_of_all(make_rows):
    random = np.random.default_rng(1)
    first, second = random.integers(0, 4, 60), random.integers(0, 4, 60)
    best = max(np.mean(np.array(order)[first] == second) for order in itertools.permutations(range(4)))
    line = Stability.of(make_rows(np.eye(4)[first]), make_rows(np.eye(4)[second])).iloc[0]
    assert line["agreement"] == pytest.approx(best)


@pytest.mark.parametrize("experts", [2, 8, 32])
def test_gates_that_have_nothing_to_do_with_each_other_are_their_null(make_rows, experts):
    random, lines = np.random.default_rng(2), []
    for _ in range(20):
        sides = [make_rows(np.eye(experts)[random.integers(0, experts, 500)]) for _ in range(2)]
        lines.append(Stability.of(*sides).iloc[0])
    agreement, null = (np.array([line[name] for line in lines]) for name in ("agreement", "null"))
    assert null.mean() > 1 / experts
    assert agreement.mean() == pytest.approx(null.mean(), rel=0.06)
