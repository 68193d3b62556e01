import torch

from moebius.routers.sinkhorn import Sinkhorn


def test_an_even_assignment_against_a_strong_preference():
    torch.manual_seed(0)
    scores = torch.randn(400, 4) + torch.tensor([3.0, 0.0, 0.0, 0.0])
    router = Sinkhorn(iterations=20)
    even = router(scores).aux["assigned"] / 400
    assert (even - 0.25).abs().max() < 0.05
    assert router.eval()(scores).aux["assigned"][0] > 350


def test_the_weight_is_the_gates_own_probability():
    scores = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    weights = Sinkhorn()(scores).weights
    torch.testing.assert_close(weights, scores.softmax(-1) * torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_two_experts_a_row_are_renormalised():
    torch.manual_seed(0)
    routing = Sinkhorn(2)(torch.randn(20, 5))
    assert ((routing.weights != 0).sum(-1) == 2).all()
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(20))


def test_an_expert_that_is_ruled_out_gets_no_row():
    scores = torch.zeros(8, 3)
    scores[:, 1] = -torch.inf
    routing = Sinkhorn()(scores)
    assert routing.aux["assigned"][1] == 0
    assert routing.weights.isfinite().all()
