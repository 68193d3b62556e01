import torch

from moebius.routers.argmax import Argmax
from moebius.routers.soft import Soft


def test_worked():
    routing = Argmax()(torch.tensor([[0.1, 0.3, 0.2], [5.0, -1.0, 4.0]]))
    assert routing.weights.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert routing.selection.expert_A.tolist() == [1, 0]
    assert routing.selection.row_A.tolist() == [0, 1]
    assert routing.selection.weight_A.tolist() == [1.0, 1.0]
    assert routing.selection.kept_A.tolist() == [True, True]


def test_ties_go_to_the_first():
    assert Argmax()(torch.zeros(3, 4)).selection.expert_A.tolist() == [0, 0, 0]
    assert Argmax()(torch.tensor([[0.0, 1.0, 1.0]])).selection.expert_A.tolist() == [1]


def test_it_is_the_limit_of_the_soft_router_at_great_scores():
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Soft()(scores * 1e4).weights, Argmax()(scores).weights)


def test_probs_stay_the_gates_distribution():
    scores = torch.randn(5, 3)
    torch.testing.assert_close(Argmax()(scores).probs, scores.softmax(-1))


def test_one_expert_at_most():
    assert Argmax().max_active(16) == 1
