import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from moebius.kit.errors import ArgumentError
from moebius.lab.diagnostics.confusion import confusion


def test_worked_literal():
    frame = confusion(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2]), ["cat", "dog", "fox"])
    assert frame.values.tolist() == [
        ["cat", "cat", 2, 2 / 3],
        ["cat", "dog", 1, 1 / 3],
        ["fox", "fox", 1, 1.0],
    ]


def test_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(0, 5, 400), generator.integers(0, 5, 400)
    frame = confusion(labels, predictions, list("abcde"))
    matrix = frame.pivot(index="label", columns="prediction", values="rows").to_numpy()
    assert matrix.tolist() == confusion_matrix(labels, predictions).tolist()


def test_a_prediction_without_a_name_is_refused():
    with pytest.raises(ArgumentError, match="predictions: needs indices"):
        confusion(np.array([0]), np.array([3]), ["cat"])
