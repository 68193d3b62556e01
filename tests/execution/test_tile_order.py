"""The order of assignments, and the tiles, by which the Triton kernels run."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from moebius.core.routing import Selection
from moebius.execution._triton.tile_order import order_tiles


def selecting(row_A, expert_A, kept_A):
    tensors = (torch.tensor(row_A), torch.tensor(expert_A), torch.ones(len(row_A)), torch.tensor(kept_A))
    return Selection(*tensors)


def test_a_plan_by_hand():
    selection = selecting([2, 0, 1, 0, 2, 1], [2, 0, 2, 2, 0, 0], [True, True, True, True, True, False])
    plan = order_tiles(selection, rows=3, experts=4, block=2)
    assert plan.order_P.tolist() == [1, 4, 0, 2, 3, 5]
    assert plan.row_P.tolist() == [0, 2, 2, 1, 0, 1]
    assert plan.place_E.tolist() == [0, 2, 2, 5, 5]
    # By rows: assignments 1 and 3 of row 0, 2 of row 1, 0 and 4 of row 2; then the dropped one.
    assert plan.slot_P.tolist() == [0, 4, 3, 2, 1, 5]
    assert plan.slot_T.tolist() == [0, 2, 3, 5]
    assert plan.tile_N[:3].tolist() == [[0, 2, 0], [2, 4, 2], [4, 5, 2]]
    assert len(plan.tile_N) == 3 + 4
    assert (plan.tile_N[3:, 0] >= plan.tile_N[3:, 1]).all()


@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 5), st.integers(0, 1000))
def test_tiles_hold_each_kept_assignment_once(count, experts, block, seed):
    torch.manual_seed(seed)
    expert_A, kept_A = torch.randint(experts, (count,)), torch.rand(count) < 0.7
    selection = Selection(torch.randint(4, (count,)), expert_A, torch.ones(count), kept_A)
    plan = order_tiles(selection, rows=4, experts=experts, block=block)
    seen = []
    for start, stop, expert in plan.tile_N.tolist():
        assert stop - start <= block
        assignments = plan.order_P[start : max(start, stop)].tolist()
        assert all(expert_A[assignment] == expert for assignment in assignments)
        seen += assignments
    assert sorted(seen) == kept_A.nonzero().flatten().tolist()
