"""`record` and `call` see every mixture, and leave nothing behind."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import moebius as mb

X = torch.linspace(-1, 1, 20).view(5, 4)


def make_mixture(outputs=3, experts=2):
    return mb.Mixture(mb.gates.Linear(4, experts), [nn.Linear(4, outputs) for _ in range(experts)])


def test_every_call_is_recorded_in_order():
    moe = make_mixture()
    with mb.record(moe) as log:
        moe(X)
        moe(X[:2])
    assert list(log) == [""]
    assert [len(routing.weights) for routing in log[""]] == [5, 2]
    torch.testing.assert_close(log[""][0].weights, moe.gate(X).softmax(-1))


def test_nothing_is_recorded_outside_the_block():
    moe = make_mixture()
    with mb.record(moe) as log:
        pass
    moe(X)
    assert log == {}
    assert "routing" not in " ".join(vars(moe))


def test_a_recorded_routing_has_gradients():
    moe = make_mixture()
    with mb.record(moe) as log:
        moe(X)
    log[""][-1].weights[:, 0].sum().backward()
    assert moe.gate.linear.weight.grad.count_nonzero() > 0


def test_a_model_that_holds_two_mixtures():
    model = nn.Sequential(make_mixture(outputs=4), nn.ReLU(), make_mixture(experts=3))
    with mb.record(model) as log:
        model(X)
    assert {path: [routing.experts for routing in calls] for path, calls in log.items()} == {"0": [2], "2": [3]}
    with mb.record(model[2]) as log:
        model(X)
    assert list(log) == [""]


def test_a_mixture_used_twice_is_recorded_twice_under_its_first_place():
    shared = make_mixture(outputs=4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    with mb.record(model) as log:
        model(X)
    assert list(log) == ["0"]
    assert len(log["0"]) == 2
    torch.testing.assert_close(log["0"][1].weights, shared.gate(shared(X).relu()).softmax(-1))


def test_a_record_inside_a_record():
    model = nn.Sequential(make_mixture(outputs=4), make_mixture())
    with mb.record(model) as outer:
        with mb.record(model[1]) as inner:
            model(X)
        model(X)
    assert {path: len(calls) for path, calls in outer.items()} == {"0": 2, "1": 2}
    assert [len(calls) for calls in inner.values()] == [1]
    assert inner[""][0] is outer["1"][0]


def test_recording_ends_when_the_block_raises():
    moe = make_mixture()
    with pytest.raises(KeyError), mb.record(moe) as log:
        raise KeyError
    moe(X)
    assert log == {}


def test_a_copy_is_another_module():
    moe = make_mixture()
    twin = copy.deepcopy(moe)
    with mb.record(moe) as log:
        twin(X)
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


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_forward_that_a_checkpoint_repeats_is_recorded_once(reentrant):
    moe = make_mixture()
    with mb.record(moe) as log:
        checkpoint(moe, X.clone().requires_grad_(), use_reentrant=reentrant).sum().backward()
    assert len(log[""]) == 1
    assert torch.equal(log[""][0].weights, mb.call(moe, X)[1][""][0].weights)


def test_a_loss_of_a_checkpointed_forward_has_its_gradient():
    gradients = []
    for run in (lambda moe: moe(X), lambda moe: checkpoint(moe, X, use_reentrant=False)):
        torch.manual_seed(0)
        moe = make_mixture()
        with mb.record(moe) as log:
            y = run(moe)
        (y.sum() + mb.losses.importance(log[""][0]) + mb.losses.z_loss(log[""][0])).backward()
        gradients.append([parameter.grad for parameter in moe.parameters()])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


LOSSES = {
    "importance": mb.losses.importance,
    "z_loss": mb.losses.z_loss,
    "switch_balance": mb.losses.switch_balance,
    "best_expert": lambda routing: mb.losses.best_expert(routing, routing.outputs.square().mean(-1)),
    "log_weights": lambda routing: routing.log_weights.exp().sum(),
    "weight_A": lambda routing: routing.selection.weight_A.sum(),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@pytest.mark.parametrize("input_requires_grad", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_reentrant_checkpointing_takes_the_gradient_of_is_refused(loss, input_requires_grad):
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3) for _ in range(2)], mb.routers.TopK(1))
    with mb.record(moe, outputs=True) as log:
        y = checkpoint(moe, X.clone().requires_grad_(input_requires_grad), use_reentrant=True)
    total = y.sum() + LOSSES[loss](log[""][0])
    with pytest.raises(mb.MoebiusError, match=r"^use_reentrant: .*\n  fix: .*use_reentrant=False"):
        total.backward()


def test_what_reentrant_checkpointing_records_can_be_looked_at():
    moe = mb.Mixture(mb.gates.Linear(4, 2), [nn.Linear(4, 3) for _ in range(2)])
    with mb.record(moe) as log:
        checkpoint(moe, X.clone().requires_grad_(), use_reentrant=True).sum().backward()
    routing, expected = log[""][0], mb.call(moe, X)[1][""][0]
    assert torch.equal(routing.log_weights, expected.log_weights)
    assert expected.weights is expected.probs
    assert routing.weights is routing.probs
    with torch.no_grad():
        assert mb.losses.importance(routing) == mb.losses.importance(expected)


def test_a_recorder_changes_no_gradient_of_reentrant_checkpointing():
    gradients = []
    for is_recorded in (False, True):
        torch.manual_seed(0)
        moe = make_mixture()
        x = X.clone().requires_grad_()
        with mb.record(moe if is_recorded else make_mixture()):
            checkpoint(moe, x, use_reentrant=True).square().sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in moe.parameters())])
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
