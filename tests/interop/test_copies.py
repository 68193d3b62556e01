"""deepcopy, pickle and torch.save of whole models: equal copies with values of their own."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import moebius as mb


def saved_whole(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": saved_whole,
}


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


def tensors(model):
    return dict([*model.named_parameters(), *model.named_buffers()])


def test_a_copy_is_equal_and_has_values_of_its_own(copied, model, same, train):
    train(model)
    twin, before = copied(model), copy.deepcopy(model)
    assert type(twin) is type(model)
    same(model, twin)
    one, other = tensors(model), tensors(twin)
    assert list(one) == list(other)
    assert not {value.data_ptr() for value in one.values()} & {value.data_ptr() for value in other.values()}
    train(twin)
    same(model, before)
    with pytest.raises(AssertionError):
        same(model, twin)


def test_a_copy_keeps_what_is_frozen_and_the_modes(copied, model):
    model.eval()
    frozen = [parameter for name, parameter in model.named_parameters() if "gate" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    twin = copied(model)
    asked = [parameter.requires_grad for parameter in model.parameters()]
    assert frozen
    assert [parameter.requires_grad for parameter in twin.parameters()] == asked
    assert not any(part.training for part in twin.modules())


def test_a_model_and_its_optimizer_go_on_together(copied, model, same, train):
    optimizer = train(model)
    twin, steps = copied((model, optimizer))
    assert {id(p) for group in steps.param_groups for p in group["params"]} == {id(p) for p in twin.parameters()}
    train(model, 3, optimizer, first=3)
    train(twin, 3, steps, first=3)
    same(model, twin)


def stack_and_experts():
    torch.manual_seed(0)
    experts = [mb.experts.MLP(8, 3, hidden=[5]) for _ in range(4)]
    return mb.Stack(experts), experts


def test_an_expert_of_a_copied_stack_is_the_copys(copied):
    stack, experts = stack_and_experts()
    twin = copied(stack)
    with torch.no_grad():
        for parameter in twin[3].parameters():
            parameter.zero_()
    for number, expert in enumerate(experts):
        torch.testing.assert_close(dict(stack[number].state_dict()), dict(expert.state_dict()))
        assert all(value.any() == (number != 3) for value in twin[number].state_dict().values())


def test_a_copied_expert_stands_alone(copied, batch):
    stack, experts = stack_and_experts()
    x = batch()[0]
    alone = copied(stack[3])
    assert type(alone) is mb.experts.MLP
    assert all(type(parameter) is nn.Parameter and parameter.is_leaf for parameter in alone.parameters())
    torch.testing.assert_close(alone(x), experts[3](x))
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    alone(x).square().sum().backward()
    optimizer.step()
    assert not torch.allclose(alone(x), experts[3](x))
    assert all(parameter.grad is None for parameter in stack.parameters())
    torch.testing.assert_close(dict(stack[3].state_dict()), dict(experts[3].state_dict()))


def test_a_saved_expert_takes_the_room_of_one():
    sizes = []
    for expert in (mb.Stack([nn.Linear(64, 64) for _ in range(8)])[3], nn.Linear(64, 64)):
        for part in (expert, expert.state_dict()):
            file = io.BytesIO()
            torch.save(part, file)
            sizes.append(file.tell())
    assert sizes[:2] == pytest.approx(sizes[2:], rel=0.05)
