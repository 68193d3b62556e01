import numpy as np
import pytest

from moebius.lab.diagnostics import Calibration, Reliability


def draw(rows, confidence, seed=0):
    random = np.random.default_rng(seed)
    confidence = random.uniform(*confidence, rows)
    return confidence, (random.random(rows) < confidence).astype(float)


def test_worked_literal_of_two_bins(make_rows):
    rows = make_rows(np.ones((4, 1)), confidence=[0.5, 0.5, 0.95, 0.95], scores=[1, 0, 0, 1])
    line = Calibration.of(rows).iloc[0]
    assert line["ece"] == pytest.approx((0 + 0.45) / 2)
    assert line["gap"] == pytest.approx(0.225)
    # E|X/2 − .5| for two rows is .25; for c = .95 it is 2 · .05 · .95 · .95 + .05² · .95 …, by counting.
    counted = sum(p * abs(x / 2 - 0.95) for x, p in ((0, 0.05**2), (1, 2 * 0.05 * 0.95), (2, 0.95**2)))
    assert line["null"] == pytest.approx((0.25 + counted) / 2)


@pytest.mark.parametrize("rows", [30, 300, 3000])
@pytest.mark.parametrize("confidence", [(0.5, 1.0), (0.9, 1.0)])
def test_calibrated_models_have_the_error_of_the_null(make_rows, rows, confidence):
    lines = []
    for seed in range(60):
        values, scores = draw(rows, confidence, seed)
        lines.append(Calibration.of(make_rows(np.ones((rows, 1)), confidence=values, scores=scores)).iloc[0])
    errors, nulls = (np.array([line[name] for line in lines]) for name in ("ece", "null"))
    assert errors.mean() == pytest.approx(nulls.mean(), abs=4 * errors.std() / 60**0.5)
    assert np.mean([line["ece"] > line["null_high"] for line in lines]) <= 0.1
    # Of 30 rows that are nearly all right, the intervals of some have no spread.
    assert rows == 30 or np.mean([line["low"] <= 0 <= line["high"] for line in lines]) >= 0.85


def test_an_overconfident_model_is_above_its_null(make_rows):
    values, scores = draw(2000, (0.4, 0.6))
    line = Calibration.of(make_rows(np.ones((2000, 1)), confidence=values + 0.3, scores=scores)).iloc[0]
    assert line["ece"] > 10 * line["null"]
    assert line["low"] > 0.25


def test_experts_on_all_rows_and_on_theirs_and_the_gate(make_rows):
    random = np.random.default_rng(1)
    probs = random.dirichlet([1, 1, 1], 500).astype(np.float32)
    confidence, scores = random.random((500, 3)).astype(np.float32), (random.random((500, 3)) < 0.5).astype(np.float32)
    losses = random.random((500, 3)).astype(np.float32)
    rows = make_rows(
        probs,
        confidence=confidence[:, 0],
        scores=scores[:, 0],
        expert_confidence=confidence,
        expert_scores=scores,
        expert_losses=losses,
    )
    frame = Calibration.of(rows).set_index(["of", "on", "expert"]).sort_index()
    top = probs.argmax(1)
    for expert in range(3):
        assert frame.loc[("expert", "all rows", expert), "gap"] == pytest.approx(
            (confidence - scores)[:, expert].mean(), abs=1e-6
        )
        its_rows = frame.loc[("expert", "its rows", expert)]
        assert its_rows["rows"] == (top == expert).sum()
        assert its_rows["gap"] == pytest.approx((confidence - scores)[top == expert, expert].mean(), abs=1e-6)
    gate = frame.loc[("gate", "all rows", -1)]
    assert gate["confidence"] == pytest.approx(probs.max(1).mean(), abs=1e-6)
    assert gate["score"] == pytest.approx((top == losses.argmin(1)).mean())


def test_the_bins_of_the_diagram_are_those_of_the_error(make_rows):
    values, scores = draw(700, (0.2, 1.0))
    rows = make_rows(np.ones((700, 1)), confidence=values, scores=scores)
    bins, line = Reliability.of(rows), Calibration.of(rows).iloc[0]
    assert bins["rows"].sum() == 700
    assert (bins["rows"] * (bins["null"] - bins["score"]).abs()).sum() / 700 == pytest.approx(line["ece"])
    # In float32 as in the rows: a value at the edge belongs to the bin that its own product gives.
    expected = np.bincount((values.astype(np.float32).astype(float) * 15).astype(int), minlength=15)
    assert bins["rows"].tolist() == expected[expected > 0].tolist()
