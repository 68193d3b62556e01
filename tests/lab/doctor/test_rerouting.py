import pytest
import torch
from torch import nn

import moebius as mb
from moebius.core.recording import record
from moebius.lab.doctor.rerouting import gate_places, rerouted, swapped_rows, uniform_weights, without_expert


def make(router=None):
    torch.manual_seed(0)
    return mb.Mixture(nn.Linear(4, 3), [nn.Linear(4, 2) for _ in range(3)], router).eval()


def test_uniform_weights_average_the_experts():
    moe, x = make(mb.routers.TopK(1)), torch.randn(6, 4)
    with rerouted(moe, "", uniform_weights):
        y = moe(x)
    torch.testing.assert_close(y, torch.stack([expert(x) for expert in moe.experts]).mean(0))


@pytest.mark.parametrize("router", [mb.routers.Soft(), mb.routers.TopK(1), mb.routers.TopK(2)])
def test_swapped_rows_have_the_weights_of_others_and_the_same_loads(router):
    moe, x = make(router), torch.randn(50, 4)
    with record(moe) as log:
        moe(x)
    with rerouted(moe, "", swapped_rows), record(moe) as swapped:
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
    with rerouted(moe, "", uniform_weights):
        y = moe(x)
    expected = torch.stack([expert(x).softmax(1) for expert in experts]).mean(0).log()
    torch.testing.assert_close(y.log_softmax(1), expected.log_softmax(1))
    with record(moe) as log:
        plain = moe(x)
    with rerouted(moe, "", swapped_rows):
        assert not torch.allclose(moe(x), plain)
    left = without_expert(log[""][0], 0)
    assert (left.head_weights[:, :, 0] == 0).all()
    torch.testing.assert_close(left.head_weights.sum(2), log[""][0].head_weights.sum(2))


def test_without_an_expert_the_others_share_its_weight_and_the_next_takes_rows_of_it_alone():
    routing = mb.routers.Soft()(torch.tensor([[0.0, 0.0, 0.0]]).log_softmax(1))
    torch.testing.assert_close(without_expert(routing, 1).weights, torch.tensor([[0.5, 0.0, 0.5]]))
    alone = mb.routers.TopK(1)(torch.tensor([[0.0, 2.0, 1.0]]))
    changed = without_expert(alone, 1)
    assert changed.weights[0].nonzero().flatten().tolist() == [2]
    torch.testing.assert_close(changed.weights.sum(1), alone.weights.sum(1))


def test_the_router_is_back_also_after_an_error():
    moe = make()
    router = moe.router
    with pytest.raises(RuntimeError), rerouted(moe, "", uniform_weights):
        raise RuntimeError
    assert moe.router is router


def test_places_are_the_paths_that_gates_record_under():
    inner = mb.Mixture(nn.Linear(4, 2), [nn.Linear(4, 4) for _ in range(2)])
    model = nn.Sequential(nn.Linear(4, 4), mb.Mixture(nn.Linear(4, 2), [inner, nn.Linear(4, 4)]))
    with record(model) as log:
        model(torch.randn(7, 4))
    assert set(gate_places(model)) == set(log)
