import pytest
import torch

from moebius.core.routing import Routing, Selection
from moebius.losses.batch_variance import batch_variance
from moebius.losses.importance import importance
from moebius.routers.soft import Soft

SCORES = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def chosen(expert_A, weight_A, experts):
    rows = len(expert_A)
    scores = torch.zeros(rows, experts)
    selection = Selection(torch.arange(rows), torch.tensor(expert_A), torch.tensor(weight_A), torch.ones(rows) > 0)
    return Routing.from_selection(scores, scores.softmax(-1), selection)


def test_worked():
    # Sums 1.5 and 0.5: mean 1, population variance 0.25.
    assert importance(chosen([0, 0, 1], [0.75, 0.75, 0.5], 2)).item() == pytest.approx(0.25)


def test_counts_weights_not_probabilities_nor_rows():
    # The gate itself is even; one heavy row weighs as much as two light ones.
    assert importance(chosen([0, 1, 1], [1.0, 0.5, 0.5], 2)).item() == 0
    assert importance(chosen([0, 0], [1.0, 1.0], 2)).item() == 1


def test_of_a_soft_gate_it_is_the_variance_of_the_mean_without_a_scale():
    soft = Soft()(SCORES)
    torch.testing.assert_close(importance(soft), 16 * batch_variance(soft))


@pytest.mark.parametrize("factor", [1e-30, 1.0, 1e30])
def test_a_factor_on_all_weights_changes_nothing(factor):
    weights = Soft()(SCORES.float()).weights
    scaled = weights * factor
    value = importance(Routing(SCORES.float(), scaled, scaled, scaled.log(), distribution=False))
    torch.testing.assert_close(value, importance(Soft()(SCORES.float())))


def test_a_relu_gate_that_is_closed_everywhere_is_even():
    scores = torch.full((3, 4), -1.0).requires_grad_()
    loss = importance(Soft(normalisation="relu")(scores))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.count_nonzero() == 0
