"""Gradient accumulation: how the mean over micro-batches compares with the loss of the whole batch."""

import inspect

import pytest
import torch

from moebius.kit.registry import find, kinds

RANDOM = torch.Generator().manual_seed(0)
SCORES = 2 * torch.randn(12, 4, generator=RANDOM, dtype=torch.float64)
LOSSES = torch.rand(12, 4, generator=RANDOM, dtype=torch.float64)
MICRO_BATCHES = [slice(0, 4), slice(4, 8), slice(8, 12)]


@pytest.fixture(scope="module")
def value(complete_routing, call_loss):
    """The loss of some of the rows."""

    def value_of(kind, rows=slice(None), **options):
        scores, losses = SCORES[rows], LOSSES[rows]
        return call_loss(kind, complete_routing(kind, scores, losses), losses, **options)

    return value_of


def mean_over_micro_batches(value, kind, **options):
    return torch.stack([value(kind, rows, **options) for rows in MICRO_BATCHES]).mean()


@pytest.mark.parametrize("kind", kinds("losses"))
def test_losses_of_the_batch_differ_and_document_it_and_losses_of_single_rows_agree(kind, value):
    loss = find("losses", kind)
    if "balanced" not in inspect.signature(loss).parameters:
        differs = not torch.isclose(mean_over_micro_batches(value, kind), value(kind), rtol=1e-9)
        assert differs == ("micro-batch" in inspect.getdoc(loss))
        return
    torch.testing.assert_close(mean_over_micro_batches(value, kind), value(kind))
    options = {"temperature": 1.0, "balanced": 3, "floor": 0.0}
    assert not torch.isclose(mean_over_micro_batches(value, kind, **options), value(kind, **options), rtol=1e-9)


@pytest.mark.parametrize("kind", ["batch_entropy", "batch_variance", "uniform_kl", "mutual_information", "importance"])
def test_micro_batches_ask_for_more_balance_than_the_whole_where_the_loss_is_convex_in_the_mean(kind, value):
    assert mean_over_micro_batches(value, kind) > value(kind)
    assert mean_over_micro_batches(value, "batch_variance_literal") < value("batch_variance_literal")
