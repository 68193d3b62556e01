"""Batches of experts: what is padded, what is not, and that both equal the loop."""

import pytest
import torch

import moebius as mb
from moebius.execution import _sorted_ffn
from moebius.execution._segments.choice import padding_reason
from moebius.execution._segments.contract import ROWS
from moebius.execution._segments.padded import _batches
from moebius.execution.loop import Loop
from moebius.execution.padded import Padded
from moebius.networks.feed_forward import FEED_FORWARD


def batches(counts, width=64):
    return list(_batches(counts, width, torch.device("cpu")))


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
def test_every_row_is_in_one_batch_of_its_expert(kind):
    counts = draw_counts(kind, 37)
    covered = []
    for batch in batches(counts):
        covered += range(batch.rows.start, batch.rows.stop)
        rows = torch.arange(sum(counts), dtype=torch.float32).unsqueeze(1) + 1
        padded = batch.pad(rows)
        assert padded.shape[:2] == (batch.experts.stop - batch.experts.start, batch.padded_rows)
        stripped = torch.zeros_like(rows)
        batch.strip(padded, stripped)
        assert torch.equal(stripped[batch.rows], rows[batch.rows])
        experts = torch.repeat_interleave(torch.arange(37), torch.tensor(counts))[batch.rows]
        for place, expert in enumerate(range(batch.experts.start, batch.experts.stop)):
            real = padded[place][padded[place] > 0]
            assert real.tolist() == rows[batch.rows][experts == expert].flatten().tolist()
    assert covered == list(range(sum(counts)))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_bounded(kind):
    counts = draw_counts(kind, 64)
    for batch in batches(counts):
        experts, rows = batch.experts.stop - batch.experts.start, batch.rows.stop - batch.rows.start
        active = sum(count > 0 for count in counts[batch.experts])
        assert experts * batch.padded_rows - rows <= max(0.25 * rows, 16 * active)


def test_a_few_rows_do_not_read_the_weights_of_idle_experts():
    counts = [0] * 64
    counts[3] = counts[40] = 1
    assert [(batch.experts.start, batch.experts.stop) for batch in batches(counts)] == [(3, 4), (40, 41)]


def test_steps_with_other_numbers_of_rows_have_few_shapes():
    torch.manual_seed(0)
    shapes = set()
    for _ in range(200):
        counts = torch.bincount(torch.randint(0, 8, (8192,)), minlength=8).tolist()
        shapes |= {(batch.experts.stop - batch.experts.start, batch.padded_rows) for batch in batches(counts, 2048)}
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
    assert [batch.rows.stop - batch.rows.start for batch in batches([2 * ROWS + 2])] == [1366, 1366, 1366]


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
