import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.losses.l1 import l1
from moebius.routers.relu import ReLU
from moebius.routers.soft import Soft


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_worked():
    routing = ReLU(floor=0.5)(torch.tensor([[2.0, -1.0, 0.25], [-3.0, -1.0, -2.0], [0.0, -1.0, -2.0]]))
    expected = [[2.0, 0.0, 0.25], [0.0, 0.5, 0.0], [0.5, 0.0, 0.0]]
    assert routing.weights.tolist() == routing.probs.tolist() == expected
    assert routing.selection.kept_A.tolist() == [True, False, True, False, True, False, True, False, False]
    assert not routing.distribution


def test_where_every_row_has_a_positive_score_it_is_soft_with_relu():
    scores = random(1000, 4)
    scores[:, 0] = scores[:, 0].abs() + 1e-6
    ours, expected = ReLU()(scores), Soft(normalisation="relu")(scores)
    for name in ("weights", "probs", "log_weights"):
        assert torch.equal(getattr(ours, name), getattr(expected, name)), name


def test_of_many_rows_none_is_without_an_expert_and_only_positive_scores_run():
    scores = random(5000, 4) - 0.5
    routing = ReLU()(scores)
    assert (routing.weights > 0).any(-1).all()
    dead = (scores <= 0).all(-1)
    assert 0.1 < dead.float().mean() < 0.5
    assert torch.equal(routing.weights[~dead] > 0, scores[~dead] > 0)
    assert (routing.weights[dead].sum(-1) == torch.tensor(0.01)).all()
    assert torch.equal(routing.weights[dead].argmax(-1), scores[dead].argmax(-1))
    assert routing.selection.kept_A.sum() == (routing.weights > 0).sum()


def test_a_row_without_a_positive_score_can_come_back():
    scores = torch.tensor([[-3.0, -1.0]], requires_grad=True)
    routing = ReLU()(scores)
    (routing.weights * torch.tensor([5.0, 7.0])).sum().backward()
    assert scores.grad.tolist() == [[0.0, 7.0]]


def test_a_penalty_does_not_push_it_further_away():
    scores = torch.tensor([[-3.0, -1.0], [2.0, -1.0]], requires_grad=True)
    loss = l1(ReLU(floor=1)(scores))
    loss.backward()
    assert loss.item() == 1.5
    assert scores.grad.tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_scores_that_are_all_ruled_out_have_finite_gradients():
    scores = torch.full((2, 3), -torch.inf).requires_grad_()
    weights = ReLU()(scores).weights
    weights.sum().backward()
    torch.testing.assert_close(weights.sum(-1), torch.full((2,), 0.01))
    assert scores.grad.isfinite().all()


def test_a_floor_of_zero_is_refused():
    with pytest.raises(ArgumentError, match="floor"):
        ReLU(0)
