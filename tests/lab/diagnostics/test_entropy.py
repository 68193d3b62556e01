import numpy as np
import pytest

from moebius.lab.diagnostics import Entropy
from moebius.lab.report.gate_rows import GateRows


def test_worked_literal(make_rows):
    frame = Entropy.of(make_rows([[1.0, 0.0], [0.5, 0.5]]))
    assert frame["row"].item() == pytest.approx(np.log(2) / 2)
    assert frame["marginal"].item() == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert frame["effective_experts"].item() == pytest.approx(np.exp(frame["marginal"].item()))


def test_of_a_gate_that_ignores_its_input_the_two_are_the_same(make_rows):
    frame = Entropy.of(make_rows(np.tile([0.7, 0.2, 0.1], (9, 1))))
    assert frame["row"].item() == pytest.approx(frame["marginal"].item())


def test_the_row_entropy_never_exceeds_the_marginal_one(make_rows):
    generator = np.random.default_rng(0)
    for concentration in (0.1, 1.0, 10.0):
        frame = Entropy.of(make_rows(generator.dirichlet([concentration] * 6, 200)))
        assert 0 <= frame["row"].item() <= frame["marginal"].item() <= np.log(6)


def test_the_null_is_a_random_choice_of_k(make_rows):
    random = np.random.default_rng(0)
    chosen = random.random((500, 8)).argsort(1)[:, :2]
    weights = np.zeros((500, 8))
    np.put_along_axis(weights, chosen, 0.5, 1)
    frame = Entropy.of(make_rows(weights, k=2))
    assert frame["row"].item() == pytest.approx(frame["row_null"].item())
    assert frame["marginal"].item() == pytest.approx(frame["marginal_null"].item(), abs=0.01)


@pytest.mark.parametrize(("row", "largest"), [([0.6, 0.4, 0.0], 0.6), ([-3.0, 1.0, 0.0], 0.75)])
def test_weights_outside_the_unit_interval_count_by_their_share(row, largest):
    zeros = np.zeros(4, np.int64)
    frame = Entropy.table(GateRows("test", zeros, zeros, zeros, ("cat",), ("all",), "gate", np.tile([row], (4, 1))))
    assert frame["largest_weight"].item() == pytest.approx(largest)
    assert frame["experts"].item() == 3
