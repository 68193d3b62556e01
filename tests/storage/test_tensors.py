"""A module's tensors, each once, and back."""

import pytest
import torch
from torch import nn

from moebius.storage.tensors import put_tensors, stored_tensors


def shared():
    part = nn.Linear(2, 2)
    return nn.Sequential(part, nn.ReLU(), part, nn.BatchNorm1d(2))


def apart():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.BatchNorm1d(2))


def test_a_part_that_is_used_twice_is_there_once_under_its_first_name():
    names = list(stored_tensors(shared()))
    assert [name for name in names if not name.startswith("3")] == ["0.weight", "0.bias"]
    assert {name for name in stored_tensors(apart()) if name.startswith("2")} == {"2.weight", "2.bias"}


def test_a_tied_parameter_is_there_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(stored_tensors(model)) == ["0.weight", "0.bias", "1.bias"]
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other[1].weight = other[0].weight
    put_tensors(other, stored_tensors(model))
    assert torch.equal(other(torch.ones(1, 3)), model(torch.ones(1, 3)))
    assert other[1].weight is other[0].weight


def test_buffers_are_there_and_tensors_have_no_history_and_lie_row_by_row():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()
    tensors = stored_tensors(model)
    assert {"1.running_mean", "1.num_batches_tracked"} <= set(tensors)
    assert all(tensor.is_contiguous() and not tensor.requires_grad for tensor in tensors.values())
    assert torch.equal(tensors["0.weight"], model[0].weight)


@pytest.mark.parametrize("make", [shared, apart])
def test_put_gives_back_what_was_stored(make):
    model, other, x = make(), make(), torch.rand(5, 2)
    model(x)
    put_tensors(other, stored_tensors(model))
    assert torch.equal(other.eval()(x), model.eval()(x))


def test_what_stood_alone_when_it_was_stored_may_be_used_twice():
    alone, x = apart(), torch.rand(4, 2)
    alone[2].load_state_dict(alone[0].state_dict())
    twice = shared()
    put_tensors(twice, stored_tensors(alone))
    assert torch.equal(twice.eval()(x), alone.eval()(x))


def changed(model, **tensors):
    return {**stored_tensors(model), **{name.replace("_", ".", 1): tensor for name, tensor in tensors.items()}}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (lambda other: {n: t for n, t in stored_tensors(other).items() if n != "2.bias"}, "no tensor for 2.bias"),
        (lambda other: changed(other, more_weight=torch.ones(1)), "nothing in the model is called more.weight"),
        (
            lambda other: changed(other, **{"3_running_var": torch.ones(4)}),
            r"3\.running_var has shape \(4,\), and .* \(2,\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_is_changed(tensors, said):
    model, other = apart(), apart()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=said):
        put_tensors(model, tensors(other))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
