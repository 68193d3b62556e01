import torch

from moebius.routers.expert_choice import ExpertChoice


def test_every_expert_takes_its_best_rows():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.5, 0.1, 0.4]])
    routing = ExpertChoice(capacity=1)(probs.log())
    torch.testing.assert_close(
        routing.weights, torch.tensor([[0.7, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.4]]), rtol=1e-5, atol=1e-6
    )


def test_all_experts_are_equally_busy_whatever_the_gate_says():
    scores = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) + torch.tensor([4.0, 0, 0, 0, 0])
    routing = ExpertChoice(capacity=2)(scores)
    assert (routing.weights != 0).sum(0).tolist() == [12] * 5


def test_rows_that_nobody_takes_are_counted():
    probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.85, 0.15], [0.3, 0.7]])
    routing = ExpertChoice(capacity=0.5)(probs.log())
    assert routing.aux["unchosen"] == 2
    assert (routing.weights == 0).all(-1).sum() == 2


def test_few_rows_still_go_to_every_expert():
    assert (ExpertChoice(capacity=1.0)(torch.zeros(1, 4)).weights != 0).all()


def test_an_expert_that_is_ruled_out_takes_no_row():
    routing = ExpertChoice(capacity=1)(torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]]))
    assert routing.aux["assigned"].tolist() == [1.0, 0.0]
    assert routing.aux["unchosen"] == 1
    assert (routing.weights[:, 1] == 0).all()


def test_a_row_depends_on_the_rows_beside_it():
    """What the docstring warns of: alone the second row has an expert, beside a better one it has none."""
    row, better = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [-3.0, 0.0]])
    router = ExpertChoice(capacity=0.5).eval()
    assert router(row).weights.any()
    assert not router(better).weights[0].any()
    assert not router.rows_independent
