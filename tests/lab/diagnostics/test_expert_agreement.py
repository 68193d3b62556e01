import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from moebius.lab.diagnostics import ExpertAgreement, RoutedRows


def rows_of(predictions):
    return RoutedRows(torch.ones(predictions.shape), expert_predictions=torch.tensor(predictions))


def test_agrees_with_a_loop_over_pairs():
    predictions = np.random.default_rng(0).integers(0, 4, (300, 4))
    predictions[:150, 1] = predictions[:150, 0]
    frame = ExpertAgreement.of(rows_of(predictions))
    assert len(frame) == 6
    for _, line in frame.iterrows():
        first, second = predictions[:, int(line["expert"])], predictions[:, int(line["other"])]
        assert line["overlap"] == pytest.approx((first == second).mean())
        assert line["kappa"] == pytest.approx(cohen_kappa_score(first, second))


def test_independent_experts_agree_as_often_as_the_null_says():
    predictions = np.random.default_rng(1).choice(3, (5000, 2), p=[0.7, 0.2, 0.1])
    line = ExpertAgreement.of(rows_of(predictions)).iloc[0]
    assert line["null"] == pytest.approx(0.54, abs=0.02)
    assert line["low"] < line["null"] < line["high"]


def test_twins_agree_always_also_where_they_predict_one_class():
    assert ExpertAgreement.of(rows_of(np.tile([[1], [2]], (5, 2))))["kappa"].tolist() == [1]
    assert ExpertAgreement.of(rows_of(np.ones((5, 2), int)))["kappa"].tolist() == [1]


def test_predictions_of_numbers_are_not_accepted():
    assert ExpertAgreement.accepts(rows_of(np.ones((2, 2), int)))
    assert not ExpertAgreement.accepts(rows_of(np.ones((2, 2), np.float32)))


def test_classes_that_come_later_count():
    measure = ExpertAgreement()
    for predictions in ([[0, 0]], [[2, 1]]):
        measure.update(rows_of(np.array(predictions)))
    assert measure.frame()[["overlap", "null"]].values.tolist() == [[0.5, 0.25]]
