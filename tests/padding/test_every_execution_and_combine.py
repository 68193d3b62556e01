"""Padding by every execution and combine; `moebius.testing.routers` holds every router to leaving it out."""

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.routers.soft import Soft
from moebius.testing._router_in_mixture import GateWithAux

EXPERTS = 4
ROUTERS = {
    "top_k": lambda: mb.routers.TopK(2, bias_rate=0.5, experts=EXPERTS),
    "switch": lambda: mb.routers.Switch(capacity=1.0),
    "expert_choice": lambda: mb.routers.ExpertChoice(capacity=1.0),
    "heads": lambda: mb.routers.Heads(Soft(), heads=2),
    "soft": Soft,
}


def mixture(router, stacked=False, **options):
    torch.manual_seed(0)
    experts = [nn.Linear(4, 3) for _ in range(EXPERTS)]
    gate = GateWithAux(4, router.gate_outputs(EXPERTS))
    return mb.Mixture(gate, mb.Stack(experts) if stacked else experts, router, **options).double()


# Where a router selects, gather is for stacks alone.
EXECUTIONS = [(name, stacked) for stacked in (False, True) for name in ("auto", "loop", "sorted", "gather", "dense")]
EXECUTIONS.remove(("gather", False))


@pytest.mark.parametrize(("execution", "stacked"), EXECUTIONS)
@pytest.mark.parametrize("kind", ROUTERS)
def test_by_every_execution(check_padding, tokens, mask, execution, stacked, kind):
    check_padding(mixture(ROUTERS[kind](), stacked, execution=execution), tokens, mask)


@pytest.mark.parametrize("combine", [mb.LogMixture(), mb.HeadMaximum(), mb.HeadMean()])
@pytest.mark.parametrize("router", [Soft(), mb.routers.TopK(2), mb.routers.Heads(mb.routers.TopK(1), 2)])
def test_by_every_combine(check_padding, tokens, mask, combine, router):
    check_padding(mixture(router, combine=combine), tokens, mask)


@pytest.mark.parametrize("next_best", [False, True])
def test_the_capacity_is_that_of_the_real_rows_in_eval_too(check_padding, tokens, mask, next_best):
    router = mb.routers.Switch(eval_capacity=0.5, next_best=next_best)
    moe = mixture(router).eval()
    check_padding(moe, tokens, mask)
    routing = mb.call(moe, tokens, {"mask": mask})[1][""][0]
    assert routing.aux["dropped"] > 0
    assert routing.aux["assigned"].sum() == mask.sum()
    assert routing.selection.kept_A.sum() <= EXPERTS * 2  # ⌈0.5 · 10 / 4⌉ places each, where 15 rows would have 8


def test_padding_moves_no_balance_bias():
    """All padding would go to expert 0, and would have its bias go down."""
    router = mb.routers.TopK(1, bias_rate=0.5, experts=2)
    gate = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        gate.weight.copy_(torch.eye(2))
    moe = mb.Mixture(gate, [nn.Linear(2, 3), nn.Linear(2, 3)], router)
    x = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 2)
    mask = torch.tensor([False] * 5 + [True] * 3)
    moe(x, mask=mask).sum().backward()
    mb.step_routers(moe)
    assert router.bias.tolist() == [0.5, -0.5]
