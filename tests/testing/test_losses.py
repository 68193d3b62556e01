"""Each check of gate losses finds the loss that breaks it."""

import pytest
import torch

import moebius as mb
from moebius.testing import check_loss
from moebius.testing.losses import CHECKS


def counts(routing):
    return (routing.weights > 0.5).to(routing.weights).mean()


def mean_of_nothing(routing):
    return 1 + routing.probs.square().mean(0).sum().nan_to_num()


def wrong_gradient(routing):
    loss = mb.losses.importance(routing)
    return 2 * loss - loss.detach()


def constant(routing):
    return 0 * routing.scores.sum() + 1


def entropy(routing):
    return -(routing.probs * routing.probs.log()).sum(-1).mean()


def root(routing):
    return routing.probs.sqrt().sum(-1).mean()


def total(routing):
    return routing.probs.square().sum()


def first_expert(routing):
    return routing.probs[:, 0].mean()


def rises(routing):
    loss = mb.losses.importance(routing)
    return 2 * loss.detach() - loss


@mb.needs(distribution=True)
def any_gate(routing):
    return mb.losses.importance(routing)


@mb.needs(aux=("load",))
def undeclared(routing):
    return (routing.aux["load"] * routing.aux["open"]).mean()


@mb.needs(aux=("load",))
def lenient(routing):
    return routing.aux.get("load", routing.probs).mean()


def undocumented(routing):
    """A loss."""
    return mb.losses.importance(routing)


BROKEN = {
    "gives_a_finite_number_with_finite_gradients": (counts, "gives a value without a gradient"),
    "gives_zero_for_no_rows": (mean_of_nothing, "gives 1.0 for no rows, needs 0"),
    "has_the_gradients_of_finite_differences": (wrong_gradient, "other gradients than finite differences"),
    "trains_something": (constant, "has gradients of 0 for scores and for the experts' losses"),
    "has_finite_gradients_where_probabilities_are_zero": (entropy, "gives nan where probabilities are exactly 0"),
    "has_finite_gradients_at_the_smallest_probabilities": (root, "not finite at the smallest probabilities"),
    "has_a_scale_that_does_not_depend_on_the_batch": (total, r"depends on the number of rows.*\n  fix: a mean over"),
    "does_not_depend_on_the_order_of_rows_or_experts": (first_expert, "depends on the order of experts"),
    "is_smaller_a_step_down_its_gradient": (rises, "does not become smaller a step down its gradient"),
    "refuses_a_routing_without_what_it_declares": (any_gate, "declares to need a distribution and gives a value"),
    "reads_no_more_than_it_declares": (undeclared, r"reads aux\['open'\] and does not declare it"),
    "documents_its_formula_and_its_range": (undocumented, "has no 'loss' in its docstring"),
}


def test_every_check_is_broken():
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_loss_is_named(breaks, name):
    loss, match = BROKEN[name]
    breaks(CHECKS, name, "losses", loss, f"(?s){match}")


def test_a_value_of_aux_that_it_declares_is_refused_where_it_is_missing(breaks):
    name = "refuses_a_routing_without_what_it_declares"
    breaks(CHECKS, name, "losses", lenient, r"declares to need aux\['load'\] and does not refuse a routing without")


@mb.needs(aux=("surprise",))
def surprise(routing):
    """How surprised a gate is, which a router of ours gives.

    loss = mean_i Σ_e s_ie / E

    Range [0, 1].
    """
    if "surprise" not in routing.aux:
        raise mb.ArgumentError("routing.aux", "needs 'surprise'", sorted(routing.aux))
    return routing.aux["surprise"].to(torch.promote_types(routing.probs.dtype, torch.float32)).sum() / max(
        1, routing.probs.numel()
    )


def test_a_loss_of_ones_own_that_declares_what_it_needs():
    check_loss(surprise)
