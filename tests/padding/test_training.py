"""Padding where blocks are checkpointed, gradients accumulate, and mixtures are asked."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import moebius as mb
from moebius.layers import SparseFFN


def layer():
    torch.manual_seed(0)
    router = mb.routers.TopK(2, bias_rate=0.5, experts=4)
    return SparseFFN(4, 6, 4, 2, shared=1, router=router).double()


def step(model, batches):
    """An optimizer's step of micro-batches, each a function of the model: gradients, counts, the bias that follows."""
    for batch in batches:
        with mb.record(model) as log:
            y = batch(model)
        (y.square().sum() + mb.losses.switch_balance(log["mixture"][0])).backward()
    counts = model.mixture.router._counted.tolist()
    mb.step_routers(model)
    return [parameter.grad for parameter in model.parameters()], counts, model.mixture.router.bias


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_block_routes_the_real_rows_alone_and_counts_them_once(tokens, mask, reentrant):
    padded = torch.where(mask.unsqueeze(-1), tokens, torch.nan)
    found = []
    for saving in (True, False):
        model, x = layer(), padded.clone().requires_grad_()
        y = checkpoint(model, x, mask, use_reentrant=reentrant) if saving else model(x, mask)
        y.square().sum().backward()
        counts = model.mixture.router._counted.tolist()
        mb.step_routers(model)
        gradients = [parameter.grad for parameter in model.parameters()]
        found.append((y.detach(), x.grad, gradients, counts, model.mixture.router.bias))
    torch.testing.assert_close(*found)
    assert sum(found[0][3]) == 2 * mask.sum()
    assert found[0][1][~mask].eq(0).all()


def test_losses_of_a_checkpointed_masked_block(tokens, mask):
    padded = torch.where(mask.unsqueeze(-1), tokens, torch.inf)
    saving = step(layer(), [lambda model: checkpoint(model, padded, mask, use_reentrant=False)])
    torch.testing.assert_close(saving, step(layer(), [lambda model: model(tokens[mask])]))


def test_micro_batches(tokens, mask):
    padded = torch.where(mask.unsqueeze(-1), tokens, torch.nan)
    micro = [(padded[:1], mask[:1]), (padded[1:], mask[1:])]
    masked = [lambda model, x=x, m=m: model(x, mask=m) for x, m in micro]
    alone = [lambda model, x=x, m=m: model(x[m]) for x, m in micro]
    gradients, counts, bias = step(layer(), masked)
    torch.testing.assert_close((gradients, counts, bias), step(layer(), alone))
    assert sum(counts) == 2 * mask.sum()
    assert bias.any()


def test_training_on_padded_batches_is_training_on_the_rows(tokens, mask):
    model = nn.Sequential(layer(), nn.Linear(4, 3).double())
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.AdamW(one.parameters(), lr=0.1) for one in (model, twin)]
    for number in range(5):
        x = tokens.roll(number, 0)
        with mb.context(mask=mask):
            y = model(torch.where(mask.unsqueeze(-1), x, torch.inf))[mask]
        for one, output, optimizer in zip((model, twin), (y, twin(x[mask])), optimizers, strict=True):
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
            mb.step_routers(one)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_the_choice_of_an_execution_is_that_for_the_real_rows(tokens, mask):
    moe = layer().mixture
    few = torch.zeros_like(mask).index_put((torch.tensor([1]), torch.tensor([2])), torch.tensor(True))
    assert moe.chosen(tokens, mask=few) == moe.chosen(tokens[few]) != moe.chosen(tokens, mask=mask)
    with mb.context(mask=few):
        assert moe.chosen(tokens) == moe.chosen(tokens[1, 2:3], mask=few[1, 2:3])


def test_a_record_that_is_asked_for_all_outputs_compares_experts_on_the_real_rows(tokens, mask):
    moe = mb.Mixture(mb.gates.Linear(4, 3), [nn.Linear(4, 3) for _ in range(3)], mb.routers.TopK(1)).double()
    labels = torch.arange(15).view(3, 5) % 3
    with mb.record(moe, outputs=True) as log:
        moe(torch.where(mask.unsqueeze(-1), tokens, torch.nan), mask=mask)
    (routing,) = log[""]
    by_hand = torch.stack([expert(tokens[mask]) for expert in moe.experts], 1)
    torch.testing.assert_close(routing.outputs, by_hand)
    losses = nn.functional.cross_entropy(
        routing.outputs.transpose(1, 2), labels.flatten()[routing.rows].unsqueeze(1).expand(-1, 3), reduction="none"
    )
    expected = nn.functional.cross_entropy(
        by_hand.transpose(1, 2), labels[mask].unsqueeze(1).expand(-1, 3), reduction="none"
    )
    torch.testing.assert_close(losses, expected)
    assert mb.losses.best_expert(routing, losses).isfinite()
