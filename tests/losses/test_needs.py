"""What a loss declares with `needs` is what it refuses to go without; a new loss is tested by being there."""

import inspect
from dataclasses import replace

import pytest
import torch

from moebius.core.loss_needs import LossNeeds, loss_needs
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

SCORES = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
EXPERT_LOSSES = SCORES.square()


def routers_that_give(name):
    return [kind for kind in kinds("routers") if name in find("routers", kind).aux_names]


def aux_value(name):
    """A value as the first router that declares the name gives it; values that none declares are a gate's, (T,)."""
    for kind in routers_that_give(name):
        component = find("routers", kind)
        arguments = {"k": 2, "experts": 3}
        router = component(
            **{key: arguments[key] for key in arguments if key in inspect.signature(component).parameters}
        )
        numbers = torch.randn(len(SCORES), router.gate_outputs(3), generator=torch.Generator().manual_seed(1))
        return router(numbers.double()).aux[name]
    return SCORES.square().sum(-1)


def full_routing(needs, distribution):
    """A routing with all that a loss may need."""
    routing = Soft(normalisation="softmax" if distribution else "relu")(SCORES)
    aux = {name: aux_value(name) for name in needs.aux}
    return replace(routing, aux=aux, outputs=torch.stack([EXPERT_LOSSES, -EXPERT_LOSSES], -1))


def call(kind, routing):
    loss = find("losses", kind)
    return loss(routing, EXPERT_LOSSES) if loss_needs(loss).expert_losses else loss(routing)


def refusal(kind, routing):
    """The error of a loss for a routing; None where it has none."""
    try:
        call(kind, routing)
    except ArgumentError as error:
        return error
    return None


pytestmark = pytest.mark.parametrize("kind", kinds("losses"))


def test_a_loss_refuses_weights_that_are_no_distribution_where_it_declares_a_distribution(kind):
    needs = loss_needs(find("losses", kind))
    error = refusal(kind, full_routing(needs, distribution=False))
    assert (error is not None) == needs.distribution
    if error is not None:
        assert error.argument == "routing.distribution"
        assert "normalisation: softmax" in error.fix


def test_a_loss_that_declares_a_distribution_accepts_one(kind):
    needs = loss_needs(find("losses", kind))
    if needs.distribution:
        assert refusal(kind, full_routing(needs, distribution=True)) is None


def test_a_loss_names_a_component_that_gives_the_missing_value(kind):
    needs = loss_needs(find("losses", kind))
    complete = full_routing(needs, distribution=needs.distribution)
    for name in needs.aux:
        error = refusal(kind, replace(complete, aux={key: complete.aux[key] for key in needs.aux if key != name}))
        assert error.argument == "routing.aux"
        assert repr(name) in error.rule
        routers = routers_that_give(name)
        if routers:
            assert any(f"router: {{kind: {router}" in error.fix for router in routers)
        else:
            assert any(f"gate: {{kind: {gate}" in error.fix for gate in kinds("gates"))


def test_a_loss_reads_no_value_that_it_does_not_declare(kind):
    needs = loss_needs(find("losses", kind))
    accepted = [full_routing(needs, distribution) for distribution in (True, False)]
    assert any(refusal(kind, routing) is None for routing in accepted)


def test_a_loss_has_the_argument_expert_losses_where_it_declares_them(kind):
    loss = find("losses", kind)
    assert loss_needs(loss).expert_losses == ("expert_losses" in inspect.signature(loss).parameters)


def test_a_loss_without_declaration_needs_nothing(kind):
    loss = find("losses", kind)
    assert hasattr(loss, "needs") == (loss_needs(loss) != LossNeeds())
