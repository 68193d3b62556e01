"""What holds for every router where rows are padding; a new one is tested by being there."""

import inspect

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

EXPERTS = 4
SAMPLES = {"k": 2, "temperature": 0.5, "capacity": 1.0, "router": Soft(), "heads": 2, "classes": 3}


class Gate(nn.Linear):
    """Scores, and what some losses want of a gate beside them."""

    gives_aux = True

    def forward(self, x):
        scores = super().forward(x)
        return scores, {"reconstruction": scores.square().sum(-1), "kl": scores.abs().sum(-1)}


def build(kind):
    """The router as it is made with what it cannot do without, and a bias where it has one."""
    component = find("routers", kind)
    named = inspect.signature(component).parameters
    options = {name: SAMPLES[name] for name, p in named.items() if p.default is p.empty and name in SAMPLES}
    if "experts" in named:
        options["experts"] = EXPERTS
    if "bias_rate" in named:
        options["bias_rate"] = 0.5
    if "capacity" in named:
        options["capacity"] = 1.0
    return component(**options)


def mixture(router, stacked=False, **options):
    torch.manual_seed(0)
    experts = [nn.Linear(4, 3) for _ in range(EXPERTS)]
    gate = Gate(4, router.gate_outputs(EXPERTS))
    return mb.Mixture(gate, mb.Stack(experts) if stacked else experts, router, **options).double()


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", kinds("routers"))
def test_a_masked_batch_is_the_batch_without_padding(as_without, tokens, mask, kind, training, outputs):
    compared = as_without(mixture(build(kind)).train(training), tokens, mask, outputs=outputs)
    assert compared >= 3


@pytest.mark.parametrize("kind", kinds("routers"))
def test_of_a_stack_in_a_block(as_without, tokens, mask, kind):
    as_without(mixture(build(kind), stacked=True), tokens, mask, way="block", outputs=True)


@pytest.mark.parametrize("kind", kinds("routers"))
@pytest.mark.parametrize("some", ["none", "all", "sequences"])
def test_no_row_all_rows_and_whole_sequences(as_without, tokens, kind, some):
    whole = torch.full((3, 5), some == "all")
    as_without(mixture(build(kind)), tokens, torch.tensor([True, False, True]) if some == "sequences" else whole)


@pytest.mark.parametrize("kind", kinds("routers"))
def test_a_mask_that_leaves_nothing_out_changes_nothing(tokens, kind):
    moe, found = mixture(build(kind)), []
    for options in ({}, {"mask": torch.ones(3, 5, dtype=torch.bool)}):
        torch.manual_seed(1)
        found.append(moe(tokens, **options))
    torch.testing.assert_close(*found)


# Where a router selects, gather is for stacks alone.
EXECUTIONS = [(name, stacked) for stacked in (False, True) for name in ("auto", "loop", "sorted", "gather", "dense")]
EXECUTIONS.remove(("gather", False))


@pytest.mark.parametrize(("execution", "stacked"), EXECUTIONS)
@pytest.mark.parametrize("kind", ["top_k", "switch", "expert_choice", "heads", "soft"])
def test_by_every_execution(as_without, tokens, mask, execution, stacked, kind):
    as_without(mixture(build(kind), stacked, execution=execution), tokens, mask)


@pytest.mark.parametrize("combine", [mb.LogMixture(), mb.HeadMaximum(), mb.HeadMean()])
@pytest.mark.parametrize("router", [Soft(), mb.routers.TopK(2), mb.routers.Heads(mb.routers.TopK(1), 2)])
def test_by_every_combine(as_without, tokens, mask, combine, router):
    as_without(mixture(router, combine=combine), tokens, mask)


@pytest.mark.parametrize("next_best", [False, True])
def test_the_capacity_is_that_of_the_real_rows_in_eval_too(as_without, tokens, mask, next_best):
    router = mb.routers.Switch(eval_capacity=0.5, next_best=next_best)
    moe = mixture(router).eval()
    as_without(moe, tokens, mask)
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
