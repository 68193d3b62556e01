"""What holds for every router where rows are padding; a new router is tested without further code."""

import inspect

import pytest
import torch
from torch import nn

import moebius as mb
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

EXPERTS = 4
SAMPLES = {"k": 2, "temperature": 0.5, "capacity": 1.0, "router": Soft(), "heads": 2, "classes": 3}


class AuxGate(nn.Linear):
    """Scores, and the further values of a gate that some losses need."""

    gives_aux = True

    def forward(self, x):
        scores = super().forward(x)
        return scores, {"reconstruction": scores.square().sum(-1), "kl": scores.abs().sum(-1)}


def build_router(kind):
    """Make a router with its required arguments, and with a bias and a capacity where it takes them."""
    component = find("routers", kind)
    parameters = inspect.signature(component).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    options = {name: SAMPLES[name] for name in required if name in SAMPLES}
    if "experts" in parameters:
        options["experts"] = EXPERTS
    if "bias_rate" in parameters:
        options["bias_rate"] = 0.5
    if "capacity" in parameters:
        options["capacity"] = 1.0
    return component(**options)


def make_mixture(router, stacked=False, **options):
    torch.manual_seed(0)
    experts = [nn.Linear(4, 3) for _ in range(EXPERTS)]
    gate = AuxGate(4, router.gate_outputs(EXPERTS))
    return mb.Mixture(gate, mb.Stack(experts) if stacked else experts, router, **options).double()


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", kinds("routers"))
def test_a_masked_batch_is_the_batch_without_padding(check_padding, tokens, mask, kind, training, outputs):
    compared_losses = check_padding(make_mixture(build_router(kind)).train(training), tokens, mask, outputs=outputs)
    assert compared_losses >= 3


@pytest.mark.parametrize("kind", kinds("routers"))
def test_of_a_stack_in_a_block(check_padding, tokens, mask, kind):
    check_padding(make_mixture(build_router(kind), stacked=True), tokens, mask, mask_passing="block", outputs=True)


@pytest.mark.parametrize("kind", kinds("routers"))
@pytest.mark.parametrize("real_rows", ["none", "all", "sequences"])
def test_no_row_all_rows_and_whole_sequences(check_padding, tokens, kind, real_rows):
    token_mask = torch.full((3, 5), real_rows == "all")
    mask = torch.tensor([True, False, True]) if real_rows == "sequences" else token_mask
    check_padding(make_mixture(build_router(kind)), tokens, mask)


@pytest.mark.parametrize("kind", kinds("routers"))
def test_a_mask_that_leaves_nothing_out_changes_nothing(tokens, kind):
    moe, outputs = make_mixture(build_router(kind)), []
    for options in ({}, {"mask": torch.ones(3, 5, dtype=torch.bool)}):
        torch.manual_seed(1)
        outputs.append(moe(tokens, **options))
    torch.testing.assert_close(*outputs)


# Where a router selects, gather runs stacks only.
EXECUTIONS = [(name, stacked) for stacked in (False, True) for name in ("auto", "loop", "sorted", "gather", "dense")]
EXECUTIONS.remove(("gather", False))


@pytest.mark.parametrize(("execution", "stacked"), EXECUTIONS)
@pytest.mark.parametrize("kind", ["top_k", "switch", "expert_choice", "heads", "soft"])
def test_by_every_execution(check_padding, tokens, mask, execution, stacked, kind):
    check_padding(make_mixture(build_router(kind), stacked, execution=execution), tokens, mask)


@pytest.mark.parametrize("combine", [mb.LogMixture(), mb.HeadMaximum(), mb.HeadMean()])
@pytest.mark.parametrize("router", [Soft(), mb.routers.TopK(2), mb.routers.Heads(mb.routers.TopK(1), 2)])
def test_by_every_combine(check_padding, tokens, mask, combine, router):
    check_padding(make_mixture(router, combine=combine), tokens, mask)


@pytest.mark.parametrize("next_best", [False, True])
def test_the_capacity_is_that_of_the_real_rows_in_eval_too(check_padding, tokens, mask, next_best):
    router = mb.routers.Switch(eval_capacity=0.5, next_best=next_best)
    moe = make_mixture(router).eval()
    check_padding(moe, tokens, mask)
    routing = mb.call(moe, tokens, {"mask": mask})[1][""][0]
    assert routing.aux["dropped"] > 0
    assert routing.aux["assigned"].sum() == mask.sum()
    assert routing.selection.kept_A.sum() <= EXPERTS * 2  # ⌈0.5 · 10 / 4⌉ places each, where 15 rows would have 8


def test_padding_moves_no_balance_bias():
    """Padding would go to expert 0, and would lower its bias."""
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
