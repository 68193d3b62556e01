import numpy as np
import pytest
from scipy.stats import spearmanr

from moebius.lab.diagnostics import Competence


def test_agrees_with_a_loop_over_groups(make_rows):
    random = np.random.default_rng(0)
    weights, scores = random.dirichlet([0.5] * 5, 400), random.random((400, 5)).astype(np.float32)
    classes = random.integers(0, 3, 400)
    rows = make_rows(weights, groups={"class": classes}, names={"class": ["a", "b", "c"]}, expert_scores=scores)
    frame = Competence.of(rows)
    for number, name in enumerate("abc"):
        lines, of_class = frame[frame["group"] == name], classes == number
        np.testing.assert_allclose(lines["score"], scores[of_class].mean(0), rtol=1e-5)
        use = np.bincount(weights[of_class].argmax(1), minlength=5) / of_class.sum()
        np.testing.assert_allclose(lines["use"], use)
        assert lines["null"].unique().tolist() == [pytest.approx(scores[of_class].mean())]
        correlation = spearmanr(lines["score"], use).statistic
        assert lines["rank_correlation"].iloc[0] == pytest.approx(correlation)


def test_experts_that_get_the_class_that_they_know(make_rows):
    classes = np.arange(40) % 4
    scores = np.eye(4)[classes]
    frame = Competence.of(make_rows(scores, groups={"class": classes}, expert_scores=scores))
    assert frame["rank_correlation"].tolist() == pytest.approx([1] * 16)
    assert frame["null"].tolist() == [0.25] * 16


def test_equal_experts_have_no_order(make_rows):
    weights = np.random.default_rng(0).dirichlet([1, 1], 20)
    frame = Competence.of(make_rows(weights, groups={"domain": np.zeros(20, int)}, expert_scores=np.ones((20, 2))))
    assert frame["rank_correlation"].tolist() == [0, 0]
