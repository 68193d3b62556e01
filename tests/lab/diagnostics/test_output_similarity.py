import numpy as np
import pytest

from moebius.lab.diagnostics import OutputSimilarity


def concordance(first, second):
    apart = ((first - second) ** 2).sum(1).mean()
    spread = sum(((f - f.mean(0)) ** 2).sum(1).mean() for f in (first, second))
    return 1 - apart / (spread + ((first.mean(0) - second.mean(0)) ** 2).sum())


def linear_cka(first, second):
    first, second = first - first.mean(0), second - second.mean(0)
    norms = [np.linalg.norm(f.T @ f) for f in (first, second)]
    return np.linalg.norm(first.T @ second) ** 2 / np.prod(norms)


@pytest.mark.parametrize("features", [3, 600])
def test_agrees_with_both_definitions(make_rows, features):
    random = np.random.default_rng(0)
    outputs = random.normal(0.3, 1, (50, 3, features))
    outputs[:, 1] += outputs[:, 0]
    frame = OutputSimilarity.of(make_rows(np.ones((50, 3)), outputs=outputs))
    outputs = outputs.astype(np.float32).astype(float)
    for _, line in frame.iterrows():
        first, second = outputs[:, int(line["expert"])], outputs[:, int(line["other"])]
        assert line["concordance"] == pytest.approx(concordance(first, second), rel=1e-5)
        if features == 3:
            assert line["cka"] == pytest.approx(linear_cka(first, second), rel=1e-4)
    assert ("cka" in frame) == (features == 3)


def test_twins_are_equal_and_rotations_have_the_same_information(make_rows):
    random = np.random.default_rng(0)
    first = random.normal(size=(40, 2))
    outputs = np.stack([first, first, first @ [[0, 2], [-2, 0]]], 1)
    frame = OutputSimilarity.of(make_rows(np.ones((40, 3)), outputs=outputs))
    assert frame["cka"].tolist() == pytest.approx([1, 1, 1])
    assert frame["concordance"][0] == pytest.approx(1)
    assert frame["concordance"][1] < 0.5


def test_independent_outputs_are_the_nulls(make_rows):
    outputs = np.random.default_rng(0).normal(size=(200, 12, 5))
    frame = OutputSimilarity.of(make_rows(np.ones((200, 12)), outputs=outputs))
    assert frame["concordance"].mean() == pytest.approx(0, abs=0.02)
    assert frame["cka"].mean() == pytest.approx(frame["cka_null"].mean(), rel=0.1)


def test_constant_and_equal_outputs_agree(make_rows):
    frame = OutputSimilarity.of(make_rows(np.ones((4, 2)), outputs=np.ones((4, 2, 3))))
    assert frame["concordance"].tolist() == [1]
