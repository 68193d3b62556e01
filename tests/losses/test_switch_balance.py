from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.core.routing import Routing, Selection
from moebius.losses.switch_balance import switch_balance
from moebius.routers.argmax import Argmax
from moebius.routers.soft import Soft

E = 4


def of(probs, router=Argmax, **aux):
    return replace(router()(torch.tensor(probs, dtype=torch.float64).log()), aux=aux)


def test_worked():
    # f = (2/3, 1/3), P = (0.6, 0.4): 2 · (0.4 + 0.4 / 3).
    probs = [[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]]
    assert switch_balance(of(probs)).item() == pytest.approx(2 * (0.4 + 0.4 / 3))
    assert switch_balance(of(probs, Soft)).item() == pytest.approx(2 * (0.4 + 0.4 / 3))


def test_it_is_below_its_value_at_balance_where_crowded_experts_have_little_probability():
    assigned = torch.tensor([3.0, 1.0])
    assert switch_balance(of([[0.5, 0.5]] * 3 + [[0.0, 1.0]], assigned=assigned)).item() == pytest.approx(0.875)


@given(mean=st.lists(st.floats(0, 1), min_size=E, max_size=E).filter(lambda mean: sum(mean) > 0.1))
def test_where_shares_and_probabilities_are_equal_balance_is_the_minimum(mean):
    mean = torch.tensor([mean], dtype=torch.float64)
    mean = mean / mean.sum()
    value = switch_balance(of(mean.tolist(), assigned=mean[0])).item()
    assert value >= 1 - 1e-12
    assert value == pytest.approx(E * mean.square().sum().item())


def test_it_is_one_where_either_is_uniform():
    uneven = torch.tensor([5.0, 1.0, 0.0, 2.0])
    assert switch_balance(of([[0.25] * E], assigned=uneven)).item() == pytest.approx(1)
    assert switch_balance(of([[0.7, 0.1, 0.1, 0.1]], assigned=torch.full((E,), 2.0))).item() == pytest.approx(1)


def test_balance_is_one_for_several_experts_a_row():
    scores = torch.zeros(4, E)
    pairs = torch.tensor([[row, (row + step) % E] for row in range(4) for step in range(2)])
    selection = Selection(pairs[:, 0], pairs[:, 1], torch.full((8,), 0.5), torch.ones(8) > 0)
    assert switch_balance(Routing.from_selection(scores, scores.softmax(-1), selection)).item() == pytest.approx(1)


def test_what_was_dropped_counts_where_the_router_says_so_and_not_otherwise():
    # Three rows for expert 0, with room for one; P = (0.75, 0.25).
    scores = torch.tensor([[3.0, 1.0]] * 3, dtype=torch.float64).log()
    rows, kept = torch.arange(3), torch.tensor([True, False, False])
    selection = Selection(rows, torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.float64), kept)
    routing = Routing.from_selection(scores, scores.softmax(-1), selection)
    assert switch_balance(routing).item() == pytest.approx(2 * 0.75)
    with_counts = replace(routing, aux={"assigned": torch.tensor([2.0, 1.0])})
    assert switch_balance(with_counts).item() == pytest.approx(2 * (2 / 3 * 0.75 + 1 / 3 * 0.25))


def test_its_gradient_is_each_experts_share():
    probs = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]], requires_grad=True)
    loss = switch_balance(Routing(probs.log(), probs, probs, probs.log()))
    (slope,) = torch.autograd.grad(loss, probs)
    torch.testing.assert_close(slope, 2 * torch.tensor([[2 / 3, 1 / 3]] * 3) / 3)
