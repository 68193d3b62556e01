import numpy as np
import pytest

from moebius.lab.diagnostics import GateMargin, RoutedRows


def test_worked_literal(make_rows):
    frame = GateMargin.of(make_rows([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]], k=2)).set_index("of")
    assert frame["mean"].tolist() == pytest.approx([0.65, 0.1])
    assert frame.loc["first", ["q05", "q95"]].tolist() == pytest.approx([0.3, 1], abs=0.001)


@pytest.mark.parametrize(("experts", "k"), [(2, 1), (10, 3), (64, 1)])
def test_distributions_that_are_drawn_uniformly_are_the_null(make_rows, experts, k):
    frame = GateMargin.of(make_rows(np.random.default_rng(0).dirichlet(np.ones(experts), 4000), k=k))
    assert ((frame["low"] < frame["null"]) & (frame["null"] < frame["high"])).all()


def test_quantiles_are_those_of_the_rows(make_rows):
    probs = np.random.default_rng(0).dirichlet([0.4] * 5, 2000)
    ordered = np.sort(probs, 1)[:, ::-1]
    frame = GateMargin.of(make_rows(probs, k=2)).set_index("of")
    for name, margin in (("first", ordered[:, 0] - ordered[:, 1]), ("last", ordered[:, 1] - ordered[:, 2])):
        names, quantiles = ["q05", "q25", "q50", "q75", "q95"], np.quantile(margin, [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(frame.loc[name, names].astype(float), quantiles, atol=2e-3)


def test_a_gate_that_prefers_nothing_has_no_margin_and_a_decided_one_all(make_rows):
    assert GateMargin.of(make_rows(np.full((5, 4), 0.25)))["mean"].tolist() == [0]
    assert GateMargin.of(make_rows(np.eye(4)))["mean"].tolist() == [1]


def test_reads_the_distribution_before_the_selection(make_rows):
    probs = make_rows([[0.5, 0.4, 0.1]]).weights
    frame = GateMargin.of(RoutedRows(probs * (probs > 0.45), probs, k=1))
    assert frame["mean"].tolist() == pytest.approx([0.1, 0.1])
