"""What holds for every loss of a routing; a new one is tested by being there."""

import inspect
from dataclasses import replace

import pytest
import torch

from moebius.core.loss_needs import loss_needs
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

# What reads no distribution; best_fit reads it at temperatures above 0 alone.
ANY_WEIGHTS = {"importance", "load", "z_loss", "l1", "expected_l0", "selector_entropy", "best_fit", "distillation"}
ANY_WEIGHTS |= {"negative_elbo"}
# Whose target follows what it teaches, and has no gradient: finite differences move both.
MOVING_TARGETS = {"distillation"}


def inputs(rows=12, experts=4, dtype=torch.float64, seed=0):
    """Free scores of a gate and free losses of the experts."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(rows, experts, generator=random, dtype=torch.float64)
    losses = torch.rand(rows, experts, generator=random, dtype=torch.float64)
    return scores.to(dtype).requires_grad_(), losses.to(dtype).requires_grad_()


def routed(kind, scores, expert_losses):
    """A routing that has all that a loss may ask for, each of it a smooth function of the scores or the losses."""
    routing = Soft(normalisation="relu" if kind == "l1" else "softmax")(scores)
    wide = routing.scores.to(routing.probs.dtype)
    chances, selectors = wide.sigmoid(), torch.stack([wide.softmax(-1), (wide / 2).softmax(-1)], 1)
    # Logits of two classes, for which the losses are those of the first.
    right = -expert_losses.clamp(1e-3, 30)
    outputs = torch.stack([right, torch.log(-torch.expm1(right))], -1)
    aux = {"load": chances, "open": chances, "selectors": selectors}
    aux |= {"reconstruction": chances.sum(-1), "kl": chances.square().sum(-1)}
    return replace(routing, outputs=outputs, aux=aux)


def value(kind, scores, expert_losses):
    loss = find("losses", kind)
    routing = routed(kind, scores, expert_losses)
    return loss(routing, expert_losses) if loss_needs(loss).expert_losses else loss(routing)


def gradients(kind, *given):
    found = torch.autograd.grad(value(kind, *given), given, allow_unused=True)
    return [torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(given, found, strict=True)]


pytestmark = pytest.mark.parametrize("kind", kinds("losses"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("rows", "experts"), [(12, 4), (1, 4), (12, 1), (0, 4)])
def test_is_a_finite_number_with_finite_gradients(kind, rows, experts, dtype):
    given = inputs(rows, experts, dtype)
    loss = value(kind, *given)
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert all(gradient.isfinite().all() for gradient in gradients(kind, *given))


def test_no_rows_give_nothing(kind):
    given = inputs(rows=0)
    assert value(kind, *given).item() == 0
    value(kind, *given).backward()


def test_gradients_are_those_of_finite_differences(kind):
    if kind in MOVING_TARGETS:
        return
    assert torch.autograd.gradcheck(lambda *given: value(kind, *given), inputs(5, 3))


def test_it_trains_something(kind):
    assert sum(gradient.abs().sum() for gradient in gradients(kind, *inputs())) > 1e-6


def test_gradients_stay_finite_where_probabilities_are_exactly_zero(kind):
    scores = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf, -torch.inf, 0.0], [0.0, -2e3, 0.0]]).requires_grad_()
    losses = torch.tensor([[1.0, torch.inf, 2.0], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]).requires_grad_()
    assert value(kind, scores, losses).isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(kind, scores, losses))


def test_gradients_stay_finite_at_the_smallest_probabilities(kind):
    scores = torch.tensor([[0.0, -87.0], [0.0, -103.0], [0.0, -1e4]]).requires_grad_()
    losses = torch.tensor([[1.0, 0.0]] * 3).requires_grad_()
    assert all(gradient.isfinite().all() for gradient in gradients(kind, scores, losses))


def test_its_scale_does_not_depend_on_the_size_of_the_batch(kind):
    given = inputs()
    torch.testing.assert_close(value(kind, *(one.repeat(7, 1) for one in given)), value(kind, *given))


def test_the_order_of_rows_and_of_experts_does_not_matter(kind):
    given = inputs()
    for changed in ([one.flip(0) for one in given], [one[:, [2, 0, 3, 1]] for one in given]):
        torch.testing.assert_close(value(kind, *changed), value(kind, *given))


def test_going_down_it_makes_it_smaller(kind):
    given = inputs()
    down = [one.detach() - 0.01 * slope for one, slope in zip(given, gradients(kind, *given), strict=True)]
    assert value(kind, *down) < value(kind, *given)


def test_refuses_a_gate_without_a_distribution_where_it_needs_one(kind):
    loss = find("losses", kind)
    scores, expert_losses = inputs()
    routing = replace(routed("l1", scores, expert_losses), distribution=False)
    given = (routing, expert_losses) if loss_needs(loss).expert_losses else (routing,)
    if kind in ANY_WEIGHTS:
        assert loss(*given).isfinite()
        return
    with pytest.raises(ArgumentError, match="normalisation: softmax"):
        loss(*given)


def test_says_its_formula_and_its_range(kind):
    text = inspect.getdoc(find("losses", kind))
    for part in ("loss = ", "Range "):
        assert part in text, part
