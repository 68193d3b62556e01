import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.recording import record
from moebius.lab.doctor.rerouting import swapped_rows, training_routers, uniform_weights
from moebius.lab.training.gate_places import find_gates
from moebius.lab.training.rerouting import rerouted


def make(router=None):
    torch.manual_seed(0)
    return mb.Mixture(nn.Linear(4, 3), [nn.Linear(4, 2) for _ in range(3)], router).eval()


def test_uniform_weights_average_the_experts():
    moe, x = make(mb.routers.TopK(1)), torch.randn(6, 4)
    with rerouted(moe, find_gates(moe), uniform_weights):
        y = moe(x)
    torch.testing.assert_close(y, torch.stack([expert(x) for expert in moe.experts]).mean(0))


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1), mb.routers.TopK(2)])
def test_swapped_rows_have_the_weights_of_others_and_the_same_loads(router):
    moe, x = make(router), torch.randn(50, 4)
    with record(moe) as log:
        moe(x)
    with rerouted(moe, find_gates(moe), swapped_rows), record(moe) as swapped:
        y = moe(x)
    before, after = log[""][0].weights, swapped[""][0].weights
    torch.testing.assert_close(before.sum(0), after.sum(0))
    assert not torch.equal(before, after)
    assert sorted(map(tuple, before.tolist())) == sorted(map(tuple, after.tolist()))
    reference = sum(after[:, [e]] * expert(x) for e, expert in enumerate(moe.experts))
    torch.testing.assert_close(y, reference)


def test_weights_for_each_class_are_changed_too():
    torch.manual_seed(0)
    experts = [nn.Linear(4, 3) for _ in range(2)]
    moe = mb.Mixture(nn.Linear(4, 6), experts, mb.routers.PerClass(classes=3), mb.LogMixture()).eval()
    x = torch.randn(8, 4)
    with rerouted(moe, find_gates(moe), uniform_weights):
        y = moe(x)
    expected = torch.stack([expert(x).softmax(1) for expert in experts]).mean(0).log()
    torch.testing.assert_close(y.log_softmax(1), expected.log_softmax(1))
    plain = moe(x)
    with rerouted(moe, find_gates(moe), swapped_rows):
        assert not torch.allclose(moe(x), plain)


def test_routers_train_by_copies():
    router = mb.routers.Switch(capacity=0.5)
    moe, x = make(router), torch.randn(40, 4)
    before = torch.get_rng_state()
    with training_routers(moe), record(moe) as log:
        assert moe.router is not router
        moe(x)
    assert log[""][0].aux["dropped"] > 0
    assert moe.router is router
    assert not router.training
    assert torch.equal(torch.get_rng_state(), before)
