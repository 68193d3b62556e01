import numpy as np
import pytest

from moebius.lab.diagnostics import Balance


def test_worked_literal(make_rows):
    frame = Balance.of(make_rows([[0.75, 0.25], [0.75, 0.25]])).set_index("of")
    assert frame.loc["assignments", ["effective", "cv"]].tolist() == pytest.approx([2, 0])
    assert frame.loc["wins", ["effective", "share", "cv"]].tolist() == pytest.approx([1, 0.5, 1])
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert frame.loc["weight", ["effective", "cv"]].tolist() == pytest.approx([np.exp(entropy), 0.5])


@pytest.mark.parametrize("experts", [1, 2, 64])
def test_a_balanced_hard_gate_uses_all_experts(make_rows, experts):
    frame = Balance.of(make_rows(np.eye(experts)[np.arange(10 * experts) % experts], k=1))
    assert frame["effective"].tolist() == pytest.approx([experts] * 3)
    assert frame["cv"].tolist() == pytest.approx([0] * 3, abs=1e-9)
    assert (frame["null"] <= experts + 1e-9).all()


@pytest.mark.parametrize("k", [1, 3])
def test_a_random_balanced_router_is_its_null(make_rows, k):
    random = np.random.default_rng(3)
    weights = np.zeros((400, 16))
    np.put_along_axis(weights, random.random((400, 16)).argsort(1)[:, :k], 1 / k, 1)
    line = Balance.of(make_rows(weights, k=k)).set_index("of").loc["assignments"]
    assert line["null_low"] <= line["effective"] <= line["null_high"]
    assert line["cv"] == pytest.approx(line["cv_null"], rel=0.5)
