import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.recording import record
from moebius.lab.training.gate_places import find_gates
from moebius.lab.training.rerouting import changed_routers, rerouted, sent_to


def make(router=None):
    torch.manual_seed(0)
    return mb.Mixture(nn.Linear(4, 3), [nn.Linear(4, 2) for _ in range(3)], router, execution="dense").eval()


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(2)])
def test_a_gate_sends_every_row_to_one_expert(router):
    moe, x = make(router), torch.randn(6, 4)
    with sent_to(moe, dict.fromkeys(find_gates(moe), 2)), record(moe) as log:
        y = moe(x)
    torch.testing.assert_close(y, moe.experts[2](x))
    assert log[""][0].weights.tolist() == [[0, 0, 1]] * 6


def test_two_gates_send_rows_to_experts_of_their_own():
    inner = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 2) for _ in range(2)])
    moe, x = mb.Mixture(nn.Linear(4, 2), [inner, nn.Linear(4, 2)]).eval(), torch.randn(5, 4)
    outer, inside = find_gates(moe)
    with sent_to(moe, {outer: 0, inside: 1}):
        y = moe(x)
    torch.testing.assert_close(y, inner.experts[1](x))


def test_a_change_reads_what_the_router_says():
    moe, x = make(), torch.randn(6, 4)
    routings = []
    with rerouted(moe, find_gates(moe), lambda routing: routings.append(routing) or routing):
        y = moe(x)
    torch.testing.assert_close(y, moe(x))
    assert routings[0].weights.shape == (6, 3)


def test_router_and_execution_are_back_also_after_an_error():
    moe = make()
    router, execution = moe.router, moe.execution
    with pytest.raises(AttributeError), changed_routers(moe, [(moe, "router")], lambda router: mb.routers.TopK(1)):
        moe.router.temperature_of_nothing  # noqa: B018
    assert moe.router is router
    assert moe.execution is execution
