"""What holds for every loss of a routing; a new one is tested by being there."""

import inspect

import pytest
import torch

from moebius.registry import find, kinds
from moebius.routers.soft import Soft


def routed(rows=12, experts=4, dtype=torch.float64, seed=0):
    scores = torch.randn(rows, experts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scores = scores.to(dtype).requires_grad_()
    return scores, Soft()(scores)


pytestmark = pytest.mark.parametrize("kind", kinds("losses"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("rows", "experts"), [(12, 4), (1, 4), (12, 1), (0, 4)])
def test_is_a_finite_number_with_finite_gradients(kind, rows, experts, dtype):
    scores, routing = routed(rows, experts, dtype)
    loss = find("losses", kind)(routing)
    assert loss.shape == ()
    assert loss.isfinite()
    loss.backward()
    assert scores.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences(kind):
    scores, _ = routed(5, 3)
    assert torch.autograd.gradcheck(lambda s: find("losses", kind)(Soft()(s)), scores)


def test_it_trains_the_gate(kind):
    scores, routing = routed()
    find("losses", kind)(routing).backward()
    assert scores.grad.abs().sum() > 1e-6


def test_gradients_stay_finite_where_probabilities_are_exactly_zero(kind):
    scores = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 0.0], [0.0, -2e3, 0.0]]).requires_grad_()
    loss = find("losses", kind)(Soft()(scores))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_gradients_stay_finite_at_the_smallest_probabilities(kind):
    scores = torch.tensor([[0.0, -87.0], [0.0, -103.0], [0.0, -1e4]]).requires_grad_()
    find("losses", kind)(Soft()(scores)).backward()
    assert scores.grad.isfinite().all()


def test_its_scale_does_not_depend_on_the_size_of_the_batch(kind):
    loss, (scores, routing) = find("losses", kind), routed()
    torch.testing.assert_close(loss(Soft()(scores.repeat(7, 1))), loss(routing))


def test_the_order_of_rows_and_of_experts_does_not_matter(kind):
    loss, (scores, routing) = find("losses", kind), routed()
    torch.testing.assert_close(loss(Soft()(scores.flip(0))), loss(routing))
    torch.testing.assert_close(loss(Soft()(scores[:, [2, 0, 3, 1]])), loss(routing))


def test_going_down_it_makes_it_smaller(kind):
    loss, (scores, routing) = find("losses", kind), routed()
    before = loss(routing)
    before.backward()
    assert loss(Soft()(scores.detach() - 0.01 * scores.grad)) < before


def test_says_its_formula_and_its_range(kind):
    text = inspect.getdoc(find("losses", kind))
    for part in ("loss = ", "Range "):
        assert part in text, part
