"""A component from outside of the package gets the facts of the data that its constructor has parameters for."""

import pytest
import torch
from torch import nn

from moebius.combine import WeightedSum
from moebius.kit.errors import UnknownKindError
from moebius.lab.model.build import build_model
from moebius.routers import Soft

# Those of images; a table has cardinalities in the place of channels and size.
FACTS = ("features", "channels", "size", "classes", "experts", "domains")
DATA_FACTS = {"features": 48, "channels": 3, "size": 4, "classes": 7, "domains": 2}
IMAGES = torch.rand(5, 3, 4, 4)


class FactsGate(nn.Module):
    """A gate that takes every fact."""

    def __init__(self, features: int, channels: int, size: int, classes: int, experts: int, domains: int):
        super().__init__()
        self.facts = dict(zip(FACTS, (features, channels, size, classes, experts, domains), strict=True))
        self.linear = nn.Linear(features, experts)

    def forward(self, x):
        return self.linear(x.flatten(1))


class FactsExpert(nn.Module):
    """An expert that takes every fact."""

    def __init__(self, features: int, channels: int, size: int, classes: int, experts: int, domains: int):
        super().__init__()
        self.facts = dict(zip(FACTS, (features, channels, size, classes, experts, domains), strict=True))
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


class FactsRouter(Soft):
    """A router that takes every fact, and an option of its own."""

    def __init__(
        self, features: int, channels: int, size: int, classes: int, experts: int, domains: int, offset: float = 0.0
    ):
        super().__init__()
        self.facts = dict(zip(FACTS, (features, channels, size, classes, experts, domains), strict=True))
        self.offset = offset


class FactsCombine(WeightedSum):
    """A combine that takes every fact."""

    def __init__(self, features: int, channels: int, size: int, classes: int, experts: int, domains: int):
        super().__init__()
        self.facts = dict(zip(FACTS, (features, channels, size, classes, experts, domains), strict=True))


@pytest.fixture
def registered(register):
    """Registers the four components as the kind `facts`."""
    components = {"gates": FactsGate, "experts": FactsExpert, "routers": FactsRouter, "combine": FactsCombine}
    for room, component in components.items():
        register(room, "facts")(component)


SPEC = {
    "gate": {"kind": "facts"},
    "experts": [{"kind": "facts", "count": 2}, {"kind": "linear"}],
    "router": {"kind": "facts", "offset": 0.5},
    "combine": {"kind": "facts"},
}


@pytest.mark.usefixtures("registered")
def test_every_room_gets_every_fact():
    moe = build_model(SPEC, DATA_FACTS)
    for component in (moe.gate, moe.experts[0], moe.experts[1], moe.router, moe.combine):
        assert component.facts == {**DATA_FACTS, "experts": 3}
    assert moe.router.offset == 0.5
    assert moe(IMAGES).shape == (5, 7)


@pytest.mark.usefixtures("registered")
def test_a_value_in_the_spec_takes_precedence():
    moe = build_model({**SPEC, "combine": {"kind": "facts", "domains": 9}}, DATA_FACTS)
    assert moe.combine.facts == {**DATA_FACTS, "experts": 3, "domains": 9}


@pytest.mark.usefixtures("registered")
def test_inside_of_a_mixture_the_experts_are_those_of_the_inner_mixture():
    spec = {"gate": {"kind": "facts"}, "experts": {"kind": "mixture", "count": 2, **SPEC}}
    moe = build_model(spec, DATA_FACTS)
    assert moe.gate.facts["experts"] == 2
    for inner in moe.experts:
        components = (inner.gate, inner.experts[0], inner.router, inner.combine)
        assert [component.facts["experts"] for component in components] == [3, 3, 3, 3]


@pytest.mark.usefixtures("registered")
def test_the_gate_gets_the_number_of_scores_that_the_router_takes():
    moe = build_model({**SPEC, "router": {"kind": "heads", "heads": 2, "router": {"kind": "facts"}}}, DATA_FACTS)
    assert moe.gate.facts["experts"] == moe.router.gate_outputs(3) == 6
    assert moe.router.router.facts["experts"] == moe.combine.facts["experts"] == 3


def test_the_kinds_are_unknown_without_registration():
    with pytest.raises(UnknownKindError, match="no routers kind is called 'facts'"):
        build_model(
            {"gate": {"kind": "linear"}, "experts": {"kind": "linear"}, "router": {"kind": "facts"}}, DATA_FACTS
        )
