"""Every gate loss keeps the contract of `moebius.testing.losses`; a new one is tested by being there."""

import inspect
from dataclasses import replace

import pytest

from moebius.core.loss_needs import loss_needs
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.testing import cases
from moebius.testing.losses import make_inputs, make_routing


@pytest.mark.parametrize(("name", "check"), cases("losses"))
def test_every_gate_loss(name, check):
    check()


@pytest.mark.parametrize("kind", kinds("losses"))
def test_refuses_a_gate_without_a_distribution_where_it_needs_one(kind):
    loss, inputs = find("losses", kind), make_inputs()
    routing = replace(make_routing(*inputs, normalisation="relu"), distribution=False)
    arguments = (routing, inputs[1]) if loss_needs(loss).expert_losses else (routing,)
    if not loss_needs(loss).distribution:
        assert loss(*arguments).isfinite()
        return
    with pytest.raises(ArgumentError, match="normalisation: softmax"):
        loss(*arguments)


@pytest.mark.parametrize("kind", kinds("losses"))
def test_states_its_formula_and_its_range(kind):
    text = inspect.getdoc(find("losses", kind))
    for part in ("loss = ", "Range "):
        assert part in text, part
