"""Grouped products take only bf16, and dropped rows have no effect on them."""

import pytest
import torch

import moebius as mb
from moebius.core.routing import Routing, Selection
from moebius.execution.grouped import Grouped, product_dtype
from moebius.kit.errors import ArgumentError

grouped = Grouped()


def routed(row_A, expert_A, kept_A, experts=2):
    row_A, expert_A, kept_A = (torch.tensor(values) for values in (row_A, expert_A, kept_A))
    scores = torch.zeros(int(row_A.max()) + 1, experts)
    return Routing.from_selection(
        scores, scores.softmax(-1), Selection(row_A, expert_A, torch.ones(len(row_A)), kept_A)
    )


def multiplying(*factors):
    """Experts y = factor · (x_1 + x_2) + 1, exact in bf16 for small whole numbers."""
    experts = mb.Stack([mb.experts.Linear(2, 1) for _ in factors])
    with torch.no_grad():
        experts.linear_weight.copy_(torch.tensor(factors).view(-1, 1, 1).expand(-1, 1, 2))
        experts.linear_bias.fill_(1)
    return experts.bfloat16()


def test_worked():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]).bfloat16()
    routing = routed([0, 1, 2, 0], [1, 1, 0, 0], [True, True, False, True])
    assert grouped(multiplying(2.0, 4.0), routing, x).tolist() == [[13.0], [29.0], [0.0], [7.0]]


def test_values_of_a_dropped_row_affect_nothing():
    """The kernel does not write rows after the last group: they may hold any values."""
    experts = multiplying(2.0, 4.0)
    x = torch.tensor([[1.0, 2.0], [torch.nan, torch.inf]]).bfloat16().requires_grad_()
    y = grouped(experts, routed([0, 1], [0, 1], [True, False]), x)
    y.sum().backward()
    assert y.tolist() == [[7.0], [0.0]]
    assert x.grad.tolist() == [[2.0, 2.0], [0.0, 0.0]]
    assert experts.linear_weight.grad.tolist() == [[[1.0, 2.0]], [[0.0, 0.0]]]


def test_its_number_format_is_that_of_autocast_where_enabled():
    x = torch.zeros(1, 2)
    assert product_dtype(x) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert product_dtype(x) == torch.bfloat16
        assert product_dtype(x.double()) == torch.float64


@pytest.mark.parametrize(
    ("experts", "x", "reason"),
    [
        (multiplying(1.0, 2.0).float(), torch.zeros(1, 2), "grouped needs bf16, and these rows are torch.float32"),
        (multiplying(1.0, 2.0).unstacked(), torch.zeros(1, 2), "grouped needs experts that share stacked parameters"),
        (
            mb.Stack([torch.nn.LayerNorm(2) for _ in range(2)]),
            torch.zeros(1, 2).bfloat16(),
            "grouped needs experts of dense layers alone: experts is a LayerNorm",
        ),
    ],
)
def test_what_it_refuses(experts, x, reason):
    with pytest.raises(ArgumentError) as caught:
        grouped(experts, routed([0], [0], [True]), x)
    assert str(caught.value).startswith(f"execution: {reason}")
    assert caught.value.fix == 'execution="auto"'
