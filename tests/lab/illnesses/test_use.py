import pytest
import torch

from moebius.lab.diagnostics._rows import RoutedRows
from moebius.lab.illnesses._examination import Examination
from moebius.lab.illnesses._use import idle_experts, use_shares
from moebius.lab.illnesses.collapsed_gate import collapsed_gate
from moebius.lab.illnesses.ignored_expert import ignored_expert


def hard(choices: torch.Tensor, experts: int, **known) -> RoutedRows:
    """Rows that go to one expert each."""
    return RoutedRows(torch.nn.functional.one_hot(choices, experts).float(), k=1, **known)


def test_worked_literal():
    rows = hard(torch.tensor([0, 0, 1, 0]), 3)
    assert use_shares(rows).tolist() == [0.75, 0.25, 0.0]


@pytest.mark.parametrize("experts", [2, 8, 64, 256])
def test_a_balanced_random_router_leaves_none_idle(experts):
    choices = torch.randint(0, experts, (20 * experts,), generator=torch.Generator().manual_seed(experts))
    rows = hard(choices, experts)
    assert not idle_experts(rows).any()
    assert collapsed_gate(Examination("gate", rows)) is None
    assert ignored_expert(Examination("gate", rows)) is None


def test_with_few_rows_chance_may_leave_an_expert_out():
    rows = hard(torch.arange(64) % 60, 64)
    assert (use_shares(rows)[60:] == 0).all()
    assert not idle_experts(rows).any()


def test_an_expert_for_a_rare_class_is_not_idle():
    choices = torch.cat([torch.zeros(990, dtype=torch.long), torch.ones(10, dtype=torch.long)])
    assert idle_experts(hard(choices, 2)).tolist() == [False, True]
    assert idle_experts(hard(choices, 2, groups={"class": choices})).tolist() == [False, False]


def test_a_weight_that_never_wins_is_use():
    weights = torch.tensor([[0.6, 0.4]]).expand(400, 2)
    assert not idle_experts(RoutedRows(weights)).any()


def test_collapse_and_neglect_are_told_apart():
    collapsed = collapsed_gate(Examination("gate", hard(torch.zeros(500, dtype=torch.long), 4)))
    assert collapsed is not None
    assert collapsed.experts == (1, 2, 3)
    assert (collapsed.effect, collapsed.null) == (1.0, 0.25)
    three = hard(torch.arange(600) % 3, 4)
    assert collapsed_gate(Examination("gate", three)) is None
    ignored = ignored_expert(Examination("gate", three))
    assert ignored is not None
    assert ignored.experts == (3,)
