"""A cached output is the part's output for the row, wherever in a mixture the part is called."""

import torch
from torch import nn

import moebius as mb
from moebius.core.output_cache import OutputCache, cached_outputs
from moebius.experts.adapter import Adapter

DATA = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([7, 2, 9, 4, 0])


class CountingLinear(nn.Module):
    """A linear layer that counts the rows that it computes."""

    def __init__(self, outputs=3):
        super().__init__()
        self.inner, self.rows = nn.Linear(4, outputs), 0

    def forward(self, x):
        self.rows += len(x)
        return self.inner(x)


def make_frozen(outputs=3):
    return Adapter(CountingLinear(outputs), frozen=True)


def cache_outputs(*parts):
    with torch.no_grad():
        cache = OutputCache({part: part(DATA) for part in parts})
    for part in parts:
        part.network.rows = 0
    return cache


def assert_served(moe, *parts):
    """With a cache of these parts the mixture's outputs are the same, and none of the parts computes a row."""
    expected = moe(DATA[ROWS])
    cache = cache_outputs(*parts)
    with cache.serve_rows(ROWS):
        torch.testing.assert_close(moe(DATA[ROWS]), expected)
    assert [part.network.rows for part in parts] == [0] * len(parts)
    moe(DATA[ROWS])
    assert any(part.network.rows for part in parts)  # and outside the block they do


def test_the_gate_and_the_experts_of_the_root():
    torch.manual_seed(0)
    gate, experts = make_frozen(2), [make_frozen(), make_frozen()]
    assert_served(mb.Mixture(gate, experts), gate, *experts)


def test_experts_that_see_some_rows_only():
    torch.manual_seed(0)
    experts = [make_frozen() for _ in range(3)]
    moe = mb.Mixture(nn.Linear(4, 3), experts, mb.routers.TopK(2))
    with mb.record(moe) as log:
        moe(DATA[ROWS])
    assert len(log[""][0].weights.argmax(1).unique()) > 1  # else every expert would see all rows or none
    assert_served(moe, *experts)


def test_gates_and_experts_of_mixtures_inside():
    torch.manual_seed(3)
    base, gates, experts = make_frozen(), [make_frozen(2), make_frozen(2)], [make_frozen(), make_frozen()]
    branches = [
        mb.Mixture(gate, [base, expert], mb.routers.Argmax()) for gate, expert in zip(gates, experts, strict=True)
    ]
    # The module in between passes no rows on.
    moe = mb.Mixture(nn.Linear(4, 2), [branches[0], nn.Sequential(nn.Identity(), branches[1])], mb.routers.Argmax())
    with mb.record(moe) as log:
        moe(DATA[ROWS])
    assert len(log) == 3
    assert_served(moe, base, *gates, *experts)


def test_gradients_flow_to_what_is_not_remembered():
    gate, experts = nn.Linear(4, 2), [make_frozen(), make_frozen()]
    moe = mb.Mixture(gate, experts)
    moe(DATA[ROWS]).square().sum().backward()
    expected = gate.weight.grad.clone()
    gate.zero_grad()
    with cache_outputs(*experts).serve_rows(ROWS):
        moe(DATA[ROWS]).square().sum().backward()
    torch.testing.assert_close(gate.weight.grad, expected)


def test_a_part_that_trains_again_computes_again():
    part = make_frozen()
    cache = cache_outputs(part)
    part.freeze(False)
    with cache.serve_rows(ROWS):
        part(DATA[ROWS])
    assert part.network.rows == len(ROWS)


def test_rows_of_another_number_are_not_recalled():
    """Tokens of sequences, or parts of a batch cut outside of a mixture, have no row in a table."""
    part = make_frozen()
    cache = cache_outputs(part)
    with cache.serve_rows(ROWS):
        assert cached_outputs(part, len(ROWS)) is not None
        assert cached_outputs(part, len(ROWS) - 1) is None
        torch.testing.assert_close(part(DATA[ROWS][:2]), part.network.inner(DATA[ROWS][:2]))
    assert part.network.rows == 2


def test_nothing_is_recalled_of_other_parts_and_outside():
    part, other = make_frozen(), make_frozen()
    cache = cache_outputs(part)
    assert cached_outputs(part, len(ROWS)) is None
    with cache.serve_rows(ROWS):
        assert cached_outputs(other, len(ROWS)) is None
        with OutputCache().serve_rows(ROWS):
            assert cached_outputs(part, len(ROWS)) is None
        assert cached_outputs(part, len(ROWS)) is not None
    assert cached_outputs(part, len(ROWS)) is None


def test_a_batch_without_rows():
    part = make_frozen()
    with cache_outputs(part).serve_rows(ROWS[:0]):
        assert part(DATA[:0]).shape == (0, 3)
