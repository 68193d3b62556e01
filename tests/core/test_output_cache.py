"""What a memory says of a row is what the part says of it, wherever in a mixture it is asked."""

import torch
from torch import nn

import moebius as mb
from moebius.core.output_cache import OutputCache, cached_outputs
from moebius.experts.adapter import Adapter

DATA = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([7, 2, 9, 4, 0])


class Counting(nn.Module):
    """A linear layer that counts the rows that it computes."""

    def __init__(self, outputs=3):
        super().__init__()
        self.inner, self.rows = nn.Linear(4, outputs), 0

    def forward(self, x):
        self.rows += len(x)
        return self.inner(x)


def frozen(outputs=3):
    return Adapter(Counting(outputs), frozen=True)


def remembered(*parts):
    with torch.no_grad():
        memory = OutputCache({part: part(DATA) for part in parts})
    for part in parts:
        part.network.rows = 0
    return memory


def assert_recalled(moe, *parts):
    """The mixture with a memory of these parts says the same, and none of them computes a row."""
    plain = moe(DATA[ROWS])
    memory = remembered(*parts)
    with memory.serve_rows(ROWS):
        torch.testing.assert_close(moe(DATA[ROWS]), plain)
    assert [part.network.rows for part in parts] == [0] * len(parts)
    moe(DATA[ROWS])
    assert any(part.network.rows for part in parts)  # and outside the block they do


def test_the_gate_and_the_experts_of_the_root():
    torch.manual_seed(0)
    gate, experts = frozen(2), [frozen(), frozen()]
    assert_recalled(mb.Mixture(gate, experts), gate, *experts)


def test_experts_that_see_some_rows_only():
    torch.manual_seed(0)
    experts = [frozen() for _ in range(3)]
    moe = mb.Mixture(nn.Linear(4, 3), experts, mb.routers.TopK(2))
    with mb.record(moe) as log:
        moe(DATA[ROWS])
    assert len(log[""][0].weights.argmax(1).unique()) > 1  # else every expert would see all rows or none
    assert_recalled(moe, *experts)


def test_gates_and_experts_of_mixtures_inside():
    torch.manual_seed(3)
    base, gates, experts = frozen(), [frozen(2), frozen(2)], [frozen(), frozen()]
    branches = [mb.Mixture(gate, [base, one], mb.routers.Argmax()) for gate, one in zip(gates, experts, strict=True)]
    # A module in between knows nothing of rows.
    moe = mb.Mixture(nn.Linear(4, 2), [branches[0], nn.Sequential(nn.Identity(), branches[1])], mb.routers.Argmax())
    with mb.record(moe) as log:
        moe(DATA[ROWS])
    assert len(log) == 3
    assert_recalled(moe, base, *gates, *experts)


def test_gradients_flow_to_what_is_not_remembered():
    gate, experts = nn.Linear(4, 2), [frozen(), frozen()]
    moe = mb.Mixture(gate, experts)
    moe(DATA[ROWS]).square().sum().backward()
    expected = gate.weight.grad.clone()
    gate.zero_grad()
    with remembered(*experts).serve_rows(ROWS):
        moe(DATA[ROWS]).square().sum().backward()
    torch.testing.assert_close(gate.weight.grad, expected)


def test_a_part_that_trains_again_computes_again():
    part = frozen()
    memory = remembered(part)
    part.freeze(False)
    with memory.serve_rows(ROWS):
        part(DATA[ROWS])
    assert part.network.rows == len(ROWS)


def test_rows_of_another_number_are_not_recalled():
    """A sequence's tokens, or a part of a batch cut by something that keeps no account, have no place in a table."""
    part = frozen()
    memory = remembered(part)
    with memory.serve_rows(ROWS):
        assert cached_outputs(part, len(ROWS)) is not None
        assert cached_outputs(part, len(ROWS) - 1) is None
        torch.testing.assert_close(part(DATA[ROWS][:2]), part.network.inner(DATA[ROWS][:2]))
    assert part.network.rows == 2


def test_nothing_is_recalled_of_other_parts_and_outside():
    part, other = frozen(), frozen()
    memory = remembered(part)
    assert cached_outputs(part, len(ROWS)) is None
    with memory.serve_rows(ROWS):
        assert cached_outputs(other, len(ROWS)) is None
        with OutputCache().serve_rows(ROWS):
            assert cached_outputs(part, len(ROWS)) is None
        assert cached_outputs(part, len(ROWS)) is not None
    assert cached_outputs(part, len(ROWS)) is None


def test_a_batch_without_rows():
    part = frozen()
    with remembered(part).serve_rows(ROWS[:0]):
        assert part(DATA[:0]).shape == (0, 3)
