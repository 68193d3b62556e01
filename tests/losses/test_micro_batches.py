"""Gradient accumulation: what a mean over micro-batches has to do with the loss of the whole batch."""

import inspect
from dataclasses import replace

import pytest
import torch

from moebius.core.loss_needs import loss_needs
from moebius.kit.registry import find, kinds
from moebius.routers.soft import Soft

RANDOM = torch.Generator().manual_seed(0)
SCORES = 2 * torch.randn(12, 4, generator=RANDOM, dtype=torch.float64)
LOSSES = torch.rand(12, 4, generator=RANDOM, dtype=torch.float64)
MICRO = [slice(0, 4), slice(4, 8), slice(8, 12)]


def value(kind, rows=slice(None), **options):
    scores, losses = SCORES[rows], LOSSES[rows]
    routing = Soft(normalisation="relu" if kind == "l1" else "softmax")(scores)
    aux = {"load": scores.sigmoid(), "open": scores.sigmoid(), "selectors": scores.softmax(-1).unsqueeze(1)}
    aux |= {"reconstruction": scores.square().sum(-1), "kl": scores.square().mean(-1)}
    routing = replace(routing, aux=aux, outputs=torch.stack([losses, -losses], -1))
    loss = find("losses", kind)
    return loss(*((routing, losses) if loss_needs(loss).expert_losses else (routing,)), **options)


def over_micro_batches(kind, **options):
    return torch.stack([value(kind, rows, **options) for rows in MICRO]).mean()


@pytest.mark.parametrize("kind", kinds("losses"))
def test_losses_of_the_batch_differ_and_say_so_and_losses_of_single_rows_agree(kind):
    loss = find("losses", kind)
    evens_out = "balanced" in inspect.signature(loss).parameters
    if not evens_out:
        differs = not torch.isclose(over_micro_batches(kind), value(kind), rtol=1e-9)
        assert differs == ("micro-batch" in inspect.getdoc(loss))
        return
    torch.testing.assert_close(over_micro_batches(kind), value(kind))
    options = {"temperature": 1.0, "balanced": 3}
    options |= {"floor": 0.0} if "floor" in inspect.signature(loss).parameters else {}
    assert not torch.isclose(over_micro_batches(kind, **options), value(kind, **options), rtol=1e-9)


@pytest.mark.parametrize("kind", ["batch_entropy", "batch_variance", "uniform_kl", "mutual_information", "importance"])
def test_micro_batches_ask_for_more_balance_than_the_whole_where_the_loss_is_convex_in_the_mean(kind):
    assert over_micro_batches(kind) > value(kind)
    assert over_micro_batches("batch_variance_literal") < value("batch_variance_literal")
