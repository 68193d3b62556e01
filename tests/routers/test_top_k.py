import math

import pytest
import torch

from moebius.errors import ArgumentError
from moebius.routers.top_k import TopK

SCORES = torch.tensor([[math.log(4.0), math.log(3.0), math.log(2.0), math.log(1.0)]])


@pytest.mark.parametrize(
    ("router", "weights"),
    [
        (TopK(2), [4 / 7, 3 / 7, 0, 0]),
        (TopK(2, renormalise=False), [0.4, 0.3, 0, 0]),
        (TopK(1), [0.4, 0, 0, 0]),
        (TopK(1, renormalise=False), [0.4, 0, 0, 0]),
        (TopK(9), [0.4, 0.3, 0.2, 0.1]),
        (TopK(2, "relu"), [math.log(4), math.log(3), 0, 0]),
        (TopK(2, "sigmoid"), [0.8 / 1.55, 0.75 / 1.55, 0, 0]),
        (TopK(2, "sigmoid", renormalise=False), [0.8, 0.75, 0, 0]),
    ],
)
def test_worked(router, weights):
    torch.testing.assert_close(router(SCORES).weights, torch.tensor([weights], dtype=torch.float32))


def test_ties_go_to_one_of_them_alone():
    assert (TopK(1)(torch.zeros(5, 3)).weights != 0).sum(-1).tolist() == [1] * 5


def test_relu_weights_of_zero_run_nothing():
    """Study 3's `sparse`: the two largest of an activation, of which fewer may be positive."""
    routing = TopK(2, "relu")(torch.tensor([[1.0, -1.0, -2.0]]))
    assert routing.selection.kept_A.tolist() == [True, False]
    assert not routing.distribution


def test_one_experts_weight_has_a_gradient_where_renormalising_would_leave_none():
    scores = SCORES.clone().requires_grad_()
    TopK(1)(scores).weights.sum().backward()
    probs = SCORES.softmax(-1)[0]
    by_hand = probs[0] * (torch.eye(4)[0] - probs)
    torch.testing.assert_close(scores.grad[0], by_hand)


def test_k_may_be_on_its_way_down():
    router = TopK(1)
    router.k = 2.6
    assert router.max_active(8) == 3
    assert (router(SCORES).weights != 0).sum() == 3
    assert router.rows_sum_to == 1.0


def test_the_bias_moves_towards_the_mean_load_while_training_and_changes_the_choice_alone():
    router = TopK(1, bias_rate=0.25, experts=2)
    scores = torch.tensor([[1.0, 0.0]] * 3)
    weights = [router(scores).weights[0].tolist() for _ in range(4)]
    # 0 → ∓0.25 → ∓0.5: then the biased scores tie at 0.5, and after that the other expert has them all.
    assert router.bias.abs().max() > 0.5 - 1e-6 or weights[-1][1] > 0
    first, second = SCORES.new_tensor([[1.0, 0.0]]).softmax(-1)[0].tolist()
    assert {round(max(weight), 4) for weight in weights} <= {round(first, 4), round(second, 4)}
    before = router.bias.clone()
    router.eval()(scores)
    assert torch.equal(router.bias, before)


def test_the_bias_balances_a_gate_that_prefers_one():
    torch.manual_seed(0)
    router = TopK(1, bias_rate=0.02, experts=4)
    preference = torch.tensor([3.0, 0.0, 0.0, 0.0])
    for _ in range(400):
        routing = router(torch.randn(64, 4) + preference)
    loads = torch.stack([router(torch.randn(64, 4) + preference).aux["assigned"] for _ in range(50)]).mean(0) / 64
    torch.testing.assert_close(loads, torch.full((4,), 0.25), rtol=0, atol=0.05)
    assert torch.equal(TopK(1)(routing.scores).probs, routing.probs)


def test_the_bias_is_saved():
    router, other = TopK(1, bias_rate=0.1, experts=2), TopK(1, bias_rate=0.1, experts=2)
    router(torch.tensor([[1.0, 0.0]]))
    other.load_state_dict(router.state_dict())
    assert torch.equal(other.bias, torch.tensor([-0.1, 0.1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: needs a whole number"),
        ({"k": 2, "bias_rate": -1}, "bias_rate: needs a number of at least 0"),
        ({"k": 2, "bias_rate": 0.1}, "experts: a bias per expert needs their number"),
        ({"k": 2, "normalisation": "softmaks"}, "normalisation: needs one of"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        TopK(**arguments)
