"""Batches of experts: what is padded, what is not, and that both equal the loop."""

import pytest
import torch

import moebius as mb
from moebius.execution import _sorted_ffn
from moebius.execution._segments import padded as layouts
from moebius.execution._segments.choice import padding_reason
from moebius.execution._segments.contract import ROWS
from moebius.execution.loop import Loop
from moebius.execution.padded import Padded
from moebius.networks.feed_forward import FEED_FORWARD


def layout(counts, width=64):
    return layouts.Padded(counts, width, torch.device("cpu"))


def draw_counts(kind, experts):
    torch.manual_seed(0)
    return {
        "even": torch.full((experts,), 16),
        "random": torch.randint(0, 40, (experts,)),
        "one has most": torch.tensor([5000, *[3] * (experts - 1)]),
        "most have none": torch.tensor([0] * (experts - 2) + [7, 1]),
        "none has any": torch.zeros(experts, dtype=torch.long),
    }[kind].tolist()


KINDS = ("even", "random", "one has most", "most have none", "none has any")


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_has_one_place_in_a_batch_of_its_expert(kind):
    counts = draw_counts(kind, 37)
    laid_out, rows = layout(counts), torch.arange(sum(counts))
    sources = laid_out.lay_out(rows)
    assert torch.equal(laid_out.take_rows(sources, len(rows)), rows)
    expert_of_row = torch.arange(37).repeat_interleave(torch.tensor(counts))
    is_real = laid_out.clear_padding(torch.ones(len(sources))).bool()
    assert is_real.sum() == len(rows)
    begin, places = 0, [0] * 37
    for batch in laid_out.batches:
        for expert, count in zip(range(batch.experts.start, batch.experts.stop), batch.counts, strict=True):
            end = begin + batch.padded_rows
            assert is_real[begin:end].tolist() == [True] * count + [False] * (batch.padded_rows - count)
            if count:  # padding repeats the expert's rows
                assert (expert_of_row[sources[begin:end]] == expert).all()
            places[expert] += batch.padded_rows
            begin = end
    assert begin == len(sources)
    assert places == laid_out.places_by_expert


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_bounded(kind):
    counts = draw_counts(kind, 64)
    laid_out = layout(counts)
    for batch in laid_out.batches:
        rows, active = sum(batch.counts), sum(count > 0 for count in batch.counts)
        assert len(batch.counts) * batch.padded_rows - rows <= max(0.25 * rows, 16 * active)
    assert sum(laid_out.places_by_expert) <= laid_out.capacity(sum(counts), 64)


def test_a_row_that_is_not_finite_reaches_the_gradients_of_its_expert_only():
    experts = mb.Stack.of(lambda: mb.experts.FFN(4, 6), 5)
    row_A = torch.arange(40)
    selection = mb.Selection(row_A, row_A % 4, torch.ones(40), torch.ones(40).bool())  # the last expert has no rows
    scores = torch.zeros(40, 5)
    x = torch.randn(40, 4)
    x[1] = torch.inf
    y = Padded()(experts, mb.Routing.from_selection(scores, scores.softmax(-1), selection), x)
    y.sum().backward()
    for parameter in experts.parameters():
        finite = parameter.grad.flatten(1).isfinite().all(1)
        assert finite.tolist()[0:1] + finite.tolist()[2:] == [True] * 4
        assert parameter.grad[4].eq(0).all()
    assert not experts.inner_weight.grad[1].isfinite().all()


def test_a_few_rows_do_not_read_the_weights_of_idle_experts():
    counts = [0] * 64
    counts[3] = counts[40] = 1
    assert [(batch.experts.start, batch.experts.stop) for batch in layout(counts).batches] == [(3, 4), (40, 41)]


def test_steps_with_other_numbers_of_rows_have_few_shapes():
    torch.manual_seed(0)
    shapes = set()
    for _ in range(200):
        counts = torch.bincount(torch.randint(0, 8, (8192,)), minlength=8).tolist()
        shapes |= {(len(batch.counts), batch.padded_rows) for batch in layout(counts, 2048).batches}
    assert len(shapes) <= 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", FEED_FORWARD)
def test_outputs_and_gradients_equal_the_loop(kind, activation):
    counts = draw_counts(kind, 9)
    experts = mb.Stack.of(lambda: mb.experts.FFN(5, 6, activation), 9).double()
    expert_A = torch.repeat_interleave(torch.arange(9), torch.tensor(counts))
    expert_A = expert_A[torch.randperm(len(expert_A))]
    row_A, weight_A = torch.arange(len(expert_A)), torch.rand(len(expert_A), dtype=torch.float64)
    selection = mb.Selection(row_A, expert_A, weight_A, torch.ones_like(row_A).bool())
    x = torch.randn(len(row_A), 5, dtype=torch.float64, requires_grad=True)
    scores = torch.zeros(len(row_A), 9, dtype=torch.float64)
    routing = mb.Routing.from_selection(scores, scores.softmax(-1), selection)
    results = []
    for execution in (Padded(), Loop()):
        experts.zero_grad(set_to_none=True)
        x.grad = None
        y = execution(experts, routing, x)
        y.square().sum().backward()
        results.append([y, x.grad, *(parameter.grad for parameter in experts.parameters())])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


def test_an_expert_with_many_rows_runs_in_blocks():
    assert [batch.counts for batch in layout([2 * ROWS + 2]).batches] == [[1366], [1366], [1366]]


def test_rule():
    """bf16 from four rows an expert on; other formats where many experts have few rows."""
    assert padding_reason(torch.bfloat16, 32, 8) is not None
    assert padding_reason(torch.bfloat16, 31, 8) is None
    assert padding_reason(torch.float32, 32 * 32, 32) is not None
    assert padding_reason(torch.float32, 32 * 32 + 1, 32) is None
    assert padding_reason(torch.float32, 32 * 31, 31) is None


def test_auto_takes_it_and_says_why():
    layer = mb.layers.SparseFFN(8, 16, experts=4, k=1).bfloat16()
    name, reason = layer.mixture.chosen(torch.randn(64, 8).bfloat16())
    assert name == "padded"
    assert "bf16" in reason


def test_the_operator_runs(monkeypatch):
    layer, x = mb.layers.SparseFFN(8, 16, experts=4, k=1).bfloat16(), torch.randn(64, 8).bfloat16()
    calls = []
    forward = _sorted_ffn.Padded.forward
    monkeypatch.setattr(_sorted_ffn.Padded, "forward", lambda *arguments: (calls.append(1), forward(*arguments))[1])
    layer(x)
    assert calls == [1]
