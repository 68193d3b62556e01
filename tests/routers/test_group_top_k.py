import math

import pytest
import torch

import moebius as mb
from moebius.kit.errors import ArgumentError
from moebius.routers import GroupTopK, TopK

# Sigmoids .9 .2 | .6 .7 | .8 .1: by the best the groups' order is 0, 2, 1, by the sum of two it is 1, 0, 2.
PROBS = torch.tensor([[0.9, 0.2, 0.6, 0.7, 0.8, 0.1]])
SCORES = PROBS.logit()


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"group_best": 1}, [0.9 / 1.7, 0, 0, 0, 0.8 / 1.7, 0]),
        ({"group_best": 2}, [0.9 / 1.6, 0, 0, 0.7 / 1.6, 0, 0]),
        ({"group_best": 2, "renormalise": False, "scale": 2.5}, [2.25, 0, 0, 1.75, 0, 0]),
        ({"group_best": 9, "open_groups": 1, "scale": 2}, [0, 0, 1.2 / 1.3, 1.4 / 1.3, 0, 0]),
        ({"k": 1}, [0.9, 0, 0, 0, 0, 0]),
        ({"k": 5, "open_groups": 1, "renormalise": False}, [0, 0, 0.6, 0.7, 0, 0]),
    ],
)
def test_worked(options, weights):
    router = GroupTopK(**{"k": 2, "groups": 3, "open_groups": 2, **options})
    torch.testing.assert_close(router(SCORES).weights, torch.tensor([weights], dtype=torch.float32))
    assert router.rows_sum_to in (None, sum(weights) if router.rows_sum_to is None else pytest.approx(sum(weights)))


def test_the_bias_opens_groups_and_chooses_experts_but_does_not_weigh():
    router = GroupTopK(1, groups=3, experts=6)
    router.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.5]))
    assert router(SCORES).weights.tolist() == [[0, 0, 0, 0, pytest.approx(0.8), 0]]


def test_a_bias_without_a_rate_stays_and_nothing_is_counted():
    router = GroupTopK(2, experts=6)
    router.bias.fill_(0.25)
    router(SCORES.clone().requires_grad_())
    router.step()
    assert router.bias.tolist() == [0.25] * 6
    assert not router._counted.any()


def test_with_a_rate_it_balances_as_top_k_does():
    routers = [GroupTopK(2, bias_rate=0.5, experts=6), TopK(2, "sigmoid", bias_rate=0.5, experts=6)]
    for router in routers:
        router(SCORES.clone().requires_grad_())
        router.step()
    assert torch.equal(*(router.bias for router in routers))
    assert routers[0].bias.any()


@pytest.mark.parametrize("normalisation", ["softmax", "sigmoid", "relu"])
@pytest.mark.parametrize("renormalise", [True, False])
def test_with_all_groups_open_it_is_top_k(normalisation, renormalise):
    scores = torch.randn(50, 6)
    grouped = GroupTopK(2, 3, 3, normalisation=normalisation, renormalise=renormalise)(scores)
    assert torch.equal(grouped.weights, TopK(2, normalisation, renormalise)(scores).weights)


def test_a_row_is_in_no_more_groups_than_are_open():
    scores = torch.randn(200, 12)
    routing = GroupTopK(4, groups=4, open_groups=2)(scores)
    groups = (routing.weights > 0).unflatten(1, (4, 3)).any(-1).sum(-1)
    assert groups.max() == 2
    free = (TopK(4)(scores).weights > 0).unflatten(1, (4, 3)).any(-1).sum(-1)
    assert free.max() == 4


def test_a_group_without_a_possible_expert_stays_closed():
    scores = torch.tensor([[-math.inf, -math.inf, -9.0, -math.inf]])
    router = GroupTopK(1, groups=2, experts=4)
    router.bias.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert router(scores).weights[0].nonzero().tolist() == [[2]]


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"groups": 0}, "groups"),
        ({"groups": 2, "open_groups": 3}, "open_groups"),
        ({"group_best": 0}, "group_best"),
        ({"scale": 0}, "scale"),
        ({"groups": 4, "experts": 6}, "groups"),
        ({"bias_rate": 0.1}, "experts"),
    ],
)
def test_arguments_outside_their_range_are_refused(options, argument):
    with pytest.raises(ArgumentError) as caught:
        GroupTopK(1, **options)
    assert caught.value.argument == argument


def test_experts_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(ArgumentError, match="cannot divide 3 experts into equal groups"):
        mb.Mixture(mb.gates.Linear(4, 3), [mb.experts.Linear(4, 2) for _ in range(3)], GroupTopK(1, 2))(
            torch.ones(5, 4)
        )
