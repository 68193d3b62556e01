"""A training loop in plain PyTorch, with what people put into it."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import moebius as mb


def test_accumulated_gradients_are_those_of_the_joint_batch(model, build, name, batch, adam, train, same):
    optimizer = adam(model)
    for step in range(3):
        x, labels = batch(step)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        for part, of_part in zip(x.chunk(4), labels.chunk(4), strict=True):
            (F.cross_entropy(model(part), of_part) / 4).backward()
        optimizer.step()
        mb.step_routers(model)
    joint = build(name)
    train(joint)
    same(joint, model, rtol=1e-4, atol=1e-5)


def test_a_router_steps_as_a_hook_of_the_optimizer(model, build, name, batch, adam, train, same):
    optimizer = adam(model)
    optimizer.register_step_post_hook(lambda *_: mb.step_routers(model))
    for step in range(3):
        x, labels = batch(step)
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    by_line = build(name)
    train(by_line)
    same(by_line, model)


def test_clipped_gradients_have_the_norm_of_all_experts(build, batch):
    norms = []
    for name in ("list", "stack"):
        model = build(name)
        x, labels = batch()
        F.cross_entropy(model(x), labels).backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1e-3, error_if_nonfinite=True))
        clipped = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
        torch.testing.assert_close(clipped, torch.tensor(1e-3), rtol=1e-3, atol=0)
    torch.testing.assert_close(*norms)


def grouped(model, batch, scaled):
    """Train with groups, a scaler and a schedule; weights decay and biases do not.

    They are told apart by name: a stack's biases have an axis for the experts, so `parameter.ndim < 2` misses them.
    """
    groups = {False: [], True: []}
    for path, parameter in model.named_parameters():
        groups[path.endswith("bias")].append(parameter)
    settings = [{"params": groups[False], "weight_decay": 0.1}, {"params": groups[True], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(settings, lr=1e-2, eps=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=4)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**10)
    for step in range(3):
        x, labels = batch(step)
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(model(x), labels)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        mb.step_routers(model)
        schedule.step()
    return model


def test_a_scaler_changes_nothing(model, build, name, batch, same):
    same(grouped(model, batch, False), grouped(build(name), batch, True), rtol=1e-4, atol=1e-6)


def test_a_stack_in_groups_trains_as_a_list(build, batch, outputs):
    torch.testing.assert_close(*(outputs(grouped(build(name), batch, False)) for name in ("list", "stack")))


def test_a_file_of_weights_alone(model, other, train, adam, same, tmp_path):
    optimizer = train(model)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "file.pt")
    state, fresh = torch.load(tmp_path / "file.pt", weights_only=True), adam(other)
    other.load_state_dict(state["model"])
    fresh.load_state_dict(state["optimizer"])
    train(model, optimizer=optimizer, first=3)
    train(other, optimizer=fresh, first=3)
    same(model, other)


@pytest.mark.parametrize("values", ["state_dict", "named_parameters"])
def test_called_with_the_values_of_another_model(model, other, values, outputs):
    state = dict(getattr(model, values)())
    torch.testing.assert_close(outputs(lambda x: functional_call(other, state, (x,))), outputs(model))
    assert not torch.allclose(outputs(other), outputs(model), atol=1e-3)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_an_average_of_its_values(model, build, name, train, outputs, batch, decay):
    average = AveragedModel(model, multi_avg_fn=None if decay is None else get_ema_multi_avg_fn(decay))
    expected = {key: value.clone() for key, value in model.named_parameters()}
    average.update_parameters(model)
    optimizer = train(model, steps=1)
    average.update_parameters(model)
    share = 0.5 if decay is None else decay
    expected = {key: share * expected[key] + (1 - share) * value for key, value in model.named_parameters()}
    torch.testing.assert_close(dict(average.module.named_parameters()), expected)
    by_hand = build(name)
    by_hand.load_state_dict(model.state_dict() | expected)
    torch.testing.assert_close(outputs(average), outputs(by_hand))
    update_bn([batch()[0]], average)
    train(model, steps=1, optimizer=optimizer)
    assert not torch.allclose(outputs(average), outputs(model))
