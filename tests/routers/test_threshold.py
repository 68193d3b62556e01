import pytest
import torch

from moebius.kit.errors import ArgumentError
from moebius.routers.threshold import Threshold

PROBS = torch.tensor([[0.6, 0.3, 0.1], [0.95, 0.04, 0.01], [0.34, 0.33, 0.33]])


@pytest.mark.parametrize(("p", "counts"), [(0.5, [1, 1, 2]), (0.65, [2, 1, 2]), (0.92, [3, 1, 3]), (1.0, [3, 3, 3])])
def test_as_many_experts_as_the_row_needs(p, counts):
    routing = Threshold(p)(PROBS.log())
    assert (routing.weights != 0).sum(-1).tolist() == counts
    chosen = routing.weights != 0
    torch.testing.assert_close(routing.weights[chosen], PROBS[chosen])


def test_what_is_chosen_reaches_p_and_would_not_without_its_last():
    scores = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    weights = Threshold(0.8)(scores).weights
    assert (weights.sum(-1) >= 0.8 - 1e-6).all()
    last = torch.where(weights > 0, weights, 2).amin(-1)
    assert (weights.sum(-1) - last < 0.8).all()


def test_renormalised_rows_sum_to_one():
    routing = Threshold(0.65, renormalise=True)(PROBS.log())
    torch.testing.assert_close(routing.weights[0], torch.tensor([2 / 3, 1 / 3, 0]))


def test_all_run_at_one_even_where_rounding_reaches_it_early():
    assert (Threshold(1.0)(torch.tensor([[30.0, 0.0, -30.0]])).weights != 0).all()


@pytest.mark.parametrize("p", [0, -1, 1.5, True])
def test_a_share_that_is_none_is_refused(p):
    with pytest.raises(ArgumentError, match="p: needs a number above 0"):
        Threshold(p)


def test_it_stops_where_the_sum_is_p_exactly():
    """No rounding asks for a third expert where two reach p, to the bit."""
    scores = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    p = Threshold(1)(scores).probs[0, :2].sum().item()
    assert (Threshold(p)(scores).weights != 0).sum() == 2
    assert (Threshold(p + 1e-6)(scores).weights != 0).sum() == 3


def test_p_may_follow_a_schedule():
    router = Threshold(1.0)
    router.p = 0.65
    assert (router(PROBS.log()).weights != 0).sum(-1).tolist() == [2, 1, 2]
