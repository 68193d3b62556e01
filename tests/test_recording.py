"""`record` and `call` see every mixture, and leave nothing behind."""

import copy

import pytest
import torch
from torch import nn

import moebius as mb

X = torch.linspace(-1, 1, 20).view(5, 4)


def mixture(outputs=3, experts=2):
    return mb.Mixture(mb.gates.Linear(4, experts), [nn.Linear(4, outputs) for _ in range(experts)])


def test_every_call_is_recorded_in_order():
    moe = mixture()
    with mb.record(moe) as log:
        moe(X)
        moe(X[:2])
    assert list(log) == [""]
    assert [len(routing.weights) for routing in log[""]] == [5, 2]
    torch.testing.assert_close(log[""][0].weights, moe.gate(X).softmax(-1))


def test_nothing_is_recorded_outside_the_block():
    moe = mixture()
    with mb.record(moe) as log:
        pass
    moe(X)
    assert log == {}
    assert "routing" not in " ".join(vars(moe))


def test_a_recorded_routing_has_gradients():
    moe = mixture()
    with mb.record(moe) as log:
        moe(X)
    log[""][-1].weights[:, 0].sum().backward()
    assert moe.gate.linear.weight.grad.count_nonzero() > 0


def test_a_model_that_holds_two_mixtures():
    model = nn.Sequential(mixture(outputs=4), nn.ReLU(), mixture(experts=3))
    with mb.record(model) as log:
        model(X)
    assert {path: [routing.experts for routing in calls] for path, calls in log.items()} == {"0": [2], "2": [3]}
    with mb.record(model[2]) as log:
        model(X)
    assert list(log) == [""]


def test_a_mixture_used_twice_is_recorded_twice_under_its_first_place():
    shared = mixture(outputs=4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    with mb.record(model) as log:
        model(X)
    assert list(log) == ["0"]
    assert len(log["0"]) == 2
    torch.testing.assert_close(log["0"][1].weights, shared.gate(shared(X).relu()).softmax(-1))


def test_a_record_inside_a_record():
    model = nn.Sequential(mixture(outputs=4), mixture())
    with mb.record(model) as outer:
        with mb.record(model[1]) as inner:
            model(X)
        model(X)
    assert {path: len(calls) for path, calls in outer.items()} == {"0": 2, "1": 2}
    assert [len(calls) for calls in inner.values()] == [1]
    assert inner[""][0] is outer["1"][0]


def test_recording_ends_when_the_block_raises():
    moe = mixture()
    with pytest.raises(KeyError), mb.record(moe) as log:
        raise KeyError
    moe(X)
    assert log == {}


def test_a_copy_is_another_module():
    moe = mixture()
    other = copy.deepcopy(moe)
    with mb.record(moe) as log:
        other(X)
    assert log == {}


def test_call_is_the_output_and_the_log():
    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), nn.Linear(4, 3)], mb.routers.Argmax())
    domain = torch.tensor([0, 1, 1, 0, 1])
    y, log = mb.call(moe, X, {"domain": domain})
    torch.testing.assert_close(y, moe(X, {"domain": domain}))
    assert log[""][0].selection.expert_A.tolist() == domain.tolist()
    assert len(log[""]) == 1


def test_call_reaches_mixtures_inside_modules_that_know_no_context():
    moe = mb.Mixture(mb.gates.Domain(2, 2), [nn.Linear(4, 3), nn.Linear(4, 3)])
    y, log = mb.call(nn.Sequential(nn.ReLU(), moe), X, {"domain": torch.tensor([0, 1, 1, 0, 1])})
    assert y.shape == (5, 3)
    assert log["1"][0].weights.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1]]
