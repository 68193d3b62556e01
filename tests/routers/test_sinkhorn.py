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


def test_worked():
    """Over the sums of their columns the rows are e / (e + 1), 1/2 and 1 / (e + 1), 1/2."""
    scores = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    assert Sinkhorn(iterations=1)(scores).selection.expert_A.tolist() == [0, 1]
    assert Sinkhorn(iterations=1).eval()(scores).selection.expert_A.tolist() == [0, 0]


def test_a_score_that_all_rows_add_to_an_expert_changes_no_choice():
    """The columns' scales absorb it: this is why no preference of the gate for one expert can collapse the training."""
    scores = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = scores + torch.tensor([50.0, 0.0, -7.0, 3.0])
    choices = [Sinkhorn(2)(values).selection.expert_A.view(60, 2).sort(-1).values for values in (scores, moved)]
    assert torch.equal(*choices)


def test_in_eval_a_row_does_not_depend_on_the_others_and_while_training_it_does():
    scores = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    router = Sinkhorn()
    assert router(scores[1:]).selection.expert_A.tolist() == [0]
    assert router(scores).selection.expert_A.tolist() == [0, 1]
    assert router.eval()(scores).selection.expert_A.tolist() == [0, 0]
