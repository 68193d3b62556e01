import numpy as np
import pytest

from moebius.lab.diagnostics import Reliability


def test_worked_literal(make_rows):
    rows = make_rows(np.ones((3, 1)), confidence=[0.1, 0.12, 1.0], scores=[0, 1, 1])
    frame = Reliability.of(rows)
    assert frame["rows"].tolist() == [2, 1]
    assert frame["score"].tolist() == [0.5, 1]
    assert frame["null"].tolist() == pytest.approx([0.11, 1])
    assert frame["at"].tolist() == pytest.approx([1 / 15, 14 / 15])


def test_of_a_calibrated_model_the_intervals_have_the_null(make_rows):
    random = np.random.default_rng(0)
    confidence = random.random(20_000)
    scores = random.random(20_000) < confidence
    frame = Reliability.of(make_rows(np.ones((20_000, 1)), confidence=confidence, scores=scores))
    assert len(frame) == 15
    assert ((frame["low"] <= frame["null"]) & (frame["null"] <= frame["high"])).sum() >= 12
