"""Running averages of the weights: by torch's own class, and by hand over names and over state dicts."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import swa_utils

import moebius as mb

DECAY, STEPS = 0.6, 4


def with_statistics(pool):
    """Experts with batch statistics, so that there are buffers of floats and of whole numbers."""
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)) for _ in range(4)]
    return mb.Mixture(mb.gates.Linear(8, 4), pool(experts))


@pytest.fixture(params=["list", "stack", "ffn", "nested", "statistics list", "statistics stack"])
def model(request, build):
    pools = {"statistics list": list, "statistics stack": mb.Stack}
    return with_statistics(pools[request.param]) if request.param in pools else build(request.param)


def averaged(model, update, train):
    """The states of a training run, and what the update makes of them step by step."""
    states = [copy.deepcopy(model.state_dict())]
    optimizer = train(model, 0)
    for step in range(STEPS):
        train(model, 1, optimizer, first=step)
        update(model)
        states.append(copy.deepcopy(model.state_dict()))
    return states


def mean_of(values, decay):
    """e ← decay · e + (1 − decay) · value, begun with the first, as a readable loop."""
    mean = values[0].clone()
    for value in values[1:]:
        mean = decay * mean + (1 - decay) * value
    return mean


def test_averaged_model_with_exponential_weights(model, train, outputs):
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(DECAY))
    # The first update copies.
    states = averaged(model, average.update_parameters, train)[1:]
    names = [name for name, _ in model.named_parameters()]
    made = dict(average.module.named_parameters())
    assert list(made) == names
    for name in names:
        torch.testing.assert_close(made[name], nn.Parameter(mean_of([state[name] for state in states], DECAY)))
    assert not torch.allclose(outputs(average), outputs(model))


def test_averaged_model_with_equal_weights_and_buffers(model, train):
    average = swa_utils.AveragedModel(model, use_buffers=True)
    states = averaged(model, average.update_parameters, train)[1:]
    floats = {name: value for name, value in average.module.state_dict().items() if value.is_floating_point()}
    for name, value in floats.items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in states]).mean(0))


def over_state_dicts(average, model):
    """The usual few lines: floats move, whole numbers are taken."""
    state = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.copy_(DECAY * value + (1 - DECAY) * state[name])
        else:
            value.copy_(state[name])


def through_load_state_dict(average, model):
    state = average.state_dict()
    for name, value in model.state_dict().items():
        state[name] = DECAY * state[name] + (1 - DECAY) * value if value.is_floating_point() else value
    average.load_state_dict(state)


def over_named_parameters(average, model):
    names = dict(average.named_parameters()), dict(model.named_parameters())
    for name, parameter in names[0].items():
        parameter.mul_(DECAY).add_(names[1][name], alpha=1 - DECAY)
    for name, buffer in average.named_buffers():
        value = model.get_buffer(name)
        buffer.copy_(DECAY * buffer + (1 - DECAY) * value if value.is_floating_point() else value)


def over_zipped_parameters(average, model):
    for one, other in zip(average.parameters(), model.parameters(), strict=True):
        one.lerp_(other, 1 - DECAY)
    for one, other in zip(average.buffers(), model.buffers(), strict=True):
        one.copy_(one.lerp(other, 1 - DECAY) if one.is_floating_point() else other)


@pytest.mark.parametrize(
    "update", [over_state_dicts, through_load_state_dict, over_named_parameters, over_zipped_parameters]
)
def test_by_hand(model, update, train, outputs):
    average = copy.deepcopy(model)
    states = averaged(model, lambda model: torch.no_grad()(update)(average, model), train)
    for name, value in average.state_dict().items():
        values = [state[name] for state in states]
        expected = mean_of(values, DECAY) if value.is_floating_point() else values[-1]
        torch.testing.assert_close(value, expected)
    assert not torch.allclose(outputs(average), outputs(model))


def test_updating_batch_statistics(batch):
    """`swa_utils.update_bn` looks for modules with statistics: it finds those of a list, and in a stack none."""
    stack = with_statistics(mb.Stack)
    separate = copy.deepcopy(stack)
    separate.experts = nn.ModuleList(separate.experts.unstacked())
    loader, before = [batch(step)[0] for step in range(3)], copy.deepcopy(stack.state_dict())
    for model in (stack, separate):
        swa_utils.update_bn(loader, model)
    torch.testing.assert_close(dict(stack.state_dict()), dict(before), rtol=0, atol=0)
    for expert in separate.experts:
        expected = torch.stack([expert[0](x).mean(0) for x in loader]).mean(0)
        torch.testing.assert_close(expert[1].running_mean, expected.detach())
