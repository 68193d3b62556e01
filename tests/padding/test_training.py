"""Padding where blocks are checkpointed, gradients accumulate, and executions are chosen."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import moebius as mb
from moebius.layers import SparseFFN


def make_layer():
    torch.manual_seed(0)
    router = mb.routers.TopK(2, bias_rate=0.5, experts=4)
    return SparseFFN(4, 6, 4, 2, shared=1, router=router).double()


def train_step(model, batches):
    """Gradients, counts and new bias of an optimizer's train_step over micro-batches, each a function of the model."""
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
    results = []
    for uses_checkpoint in (True, False):
        model, x = make_layer(), padded.clone().requires_grad_()
        y = checkpoint(model, x, mask, use_reentrant=reentrant) if uses_checkpoint else model(x, mask)
        y.square().sum().backward()
        counts = model.mixture.router._counted.tolist()
        mb.step_routers(model)
        gradients = [parameter.grad for parameter in model.parameters()]
        results.append((y.detach(), x.grad, gradients, counts, model.mixture.router.bias))
    torch.testing.assert_close(*results)
    assert sum(results[0][3]) == 2 * mask.sum()
    assert results[0][1][~mask].eq(0).all()


def test_losses_of_a_checkpointed_masked_block(tokens, mask):
    padded = torch.where(mask.unsqueeze(-1), tokens, torch.inf)
    checkpointed = train_step(make_layer(), [lambda model: checkpoint(model, padded, mask, use_reentrant=False)])
    torch.testing.assert_close(checkpointed, train_step(make_layer(), [lambda model: model(tokens[mask])]))


def test_micro_batches(tokens, mask):
    padded = torch.where(mask.unsqueeze(-1), tokens, torch.nan)
    micro_batches = [(padded[:1], mask[:1]), (padded[1:], mask[1:])]
    masked_calls = [lambda model, x=x, mask=mask: model(x, mask=mask) for x, mask in micro_batches]
    real_row_calls = [lambda model, x=x, mask=mask: model(x[mask]) for x, mask in micro_batches]
    gradients, counts, bias = train_step(make_layer(), masked_calls)
    torch.testing.assert_close((gradients, counts, bias), train_step(make_layer(), real_row_calls))
    assert sum(counts) == 2 * mask.sum()
    assert bias.any()


def test_training_on_padded_batches_is_training_on_the_rows(tokens, mask):
    model = nn.Sequential(make_layer(), nn.Linear(4, 3).double())
    twin = copy.deepcopy(model)
    optimizers = [torch.optim.AdamW(trained.parameters(), lr=0.1) for trained in (model, twin)]
    for number in range(5):
        x = tokens.roll(number, 0)
        with mb.context(mask=mask):
            y = model(torch.where(mask.unsqueeze(-1), x, torch.inf))[mask]
        for trained, output, optimizer in zip((model, twin), (y, twin(x[mask])), optimizers, strict=True):
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
            mb.step_routers(trained)
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def test_the_choice_of_an_execution_is_that_for_the_real_rows(tokens, mask):
    moe = make_layer().mixture
    one_row = torch.zeros_like(mask).index_put((torch.tensor([1]), torch.tensor([2])), torch.tensor(True))
    assert moe.chosen(tokens, mask=one_row) == moe.chosen(tokens[one_row]) != moe.chosen(tokens, mask=mask)
    with mb.context(mask=one_row):
        assert moe.chosen(tokens) == moe.chosen(tokens[1, 2:3], mask=one_row[1, 2:3])


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
