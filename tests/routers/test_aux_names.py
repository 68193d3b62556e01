"""`aux_names` of a router are the keys of `aux` that its forward gives; losses that need one rely on it."""

import inspect

import pytest
import torch

from moebius.kit.registry import find, kinds
from moebius.routers.cut import Cut
from moebius.routers.heads import Heads
from moebius.routers.soft import Soft

EXPERTS = 4
# Arguments that some routers cannot be made without.
ARGUMENTS = {"k": 2, "router": Soft(), "heads": 2, "classes": 3, "experts": EXPERTS}


def build_router(kind):
    component = find("routers", kind)
    parameters = inspect.signature(component).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return component(**{name: ARGUMENTS[name] for name in required})


def aux_of(router):
    torch.manual_seed(0)
    return router.train()(torch.randn(9, router.gate_outputs(EXPERTS))).aux


@pytest.mark.parametrize("kind", kinds("routers"))
def test_a_forward_in_training_mode_gives_what_the_router_declares(kind):
    router = build_router(kind)
    assert sorted(router.aux_names) == sorted(aux_of(router))


@pytest.mark.parametrize("kind", kinds("routers"))
@pytest.mark.parametrize("wrap", [Cut, lambda router: Heads(router, 1), lambda router: Heads(router, 2)])
def test_a_router_around_another_declares_what_comes_through(kind, wrap):
    router = wrap(build_router(kind))
    assert sorted(router.aux_names) == sorted(aux_of(router))


@pytest.mark.parametrize("kind", kinds("routers"))
def test_the_names_are_known_before_the_first_forward_and_stay_in_eval(kind):
    router = build_router(kind)
    before = router.aux_names
    aux_of(router)
    assert before == router.eval().aux_names
    assert all(isinstance(name, str) for name in before)
