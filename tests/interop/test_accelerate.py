"""accelerate: saving, loading, a prepared loop, offloading, and the hooks that replace a module's forward."""

import accelerate
import pytest
import torch
from accelerate import Accelerator
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import moebius as mb


@pytest.fixture
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.mark.parametrize("size", ["1GB", "1KB"])
def test_a_model_saved_is_the_model_loaded(accelerator, model, other, train, same, size, tmp_path):
    train(model)
    accelerator.save_model(model, tmp_path, max_shard_size=size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (size == "1KB")
    accelerate.load_checkpoint_in_model(other, tmp_path, strict=True)
    same(model, other)


def test_a_model_without_memory_is_filled_from_a_file(accelerator, model, build, name, train, same, tmp_path):
    train(model)
    accelerator.save_model(model, tmp_path)
    with accelerate.init_empty_weights():
        empty = build(name, seed=1)
    assert all(parameter.is_meta for parameter in empty.parameters())
    same(model, accelerate.load_checkpoint_and_dispatch(empty, tmp_path, device_map={"": "cpu"}, strict=True))


def steps(accelerator, model, optimizer, batches):
    for x, labels in batches:
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(x), labels))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            mb.step_routers(model)


def test_state_saved_in_the_middle_goes_on_as_if_never_saved(accelerator, model, other, adam, batch, same, tmp_path):
    model, optimizer = accelerator.prepare(model, adam(model))
    steps(accelerator, model, optimizer, [batch(0), batch(1)])
    accelerator.save_state(str(tmp_path))
    steps(accelerator, model, optimizer, [batch(2), batch(3)])
    second = Accelerator(cpu=True)
    other, fresh = second.prepare(other, adam(other))
    second.load_state(str(tmp_path))
    steps(second, other, fresh, [batch(2), batch(3)])
    same(model, other)


def test_a_prepared_loop_that_accumulates_is_a_plain_loop(model, build, name, adam, train, batch, same):
    x, labels = (torch.cat(parts) for parts in zip(*map(batch, range(3)), strict=True))
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer, loader = accelerator.prepare(model, adam(model), DataLoader(TensorDataset(x, labels), 8))
    steps(accelerator, model, optimizer, loader)
    plain = build(name)
    train(plain)
    same(plain, accelerator.unwrap_model(model), rtol=1e-4, atol=1e-5)


class Negated(ModelHook):
    def post_forward(self, module, output):
        return -output


def part(model, path):
    """What `a.2.b` names; an expert of a stack is no submodule."""
    for key in path.split("."):
        model = model[int(key)] if key.isdigit() else getattr(model, key)
    return model


@pytest.mark.parametrize(
    ("name", "path", "last"),
    [
        ("list", "experts.1", ".2"),
        ("list", "experts.1.2", ""),
        ("list", "gate", ".linear"),
        ("stack", "experts.1", ".2"),
        ("stack", "experts.1.2", ""),
        ("ffn", "2.mixture.experts.1", ".outer"),
        ("nested", "experts.0.experts.1", ".network.layers.1"),
        ("nested", "experts.1.experts.1", ".network.layers.1"),
    ],
)
def test_a_forward_that_is_replaced_acts(build, outputs, name, path, last):
    """The part says the negative, as one whose last layer has negative parameters does."""
    model, expected = build(name), build(name)
    before, hooked = outputs(model), part(model, path)
    with torch.no_grad():
        for parameter in part(expected, path + last).parameters():
            parameter.neg_()
    add_hook_to_module(hooked, Negated())
    torch.testing.assert_close(outputs(model), outputs(expected))
    assert not torch.allclose(outputs(model), before)
    remove_hook_from_module(hooked)
    torch.testing.assert_close(outputs(model), before)


def test_parameters_that_are_elsewhere_until_a_module_is_called(model, build, name, outputs, tmp_path):
    before = outputs(model)
    accelerate.cpu_offload(model, torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    torch.testing.assert_close(outputs(model), before)
    on_disk = build(name)
    accelerate.disk_offload(on_disk, str(tmp_path), torch.device("cpu"))
    assert all(parameter.is_meta for parameter in on_disk.parameters())
    torch.testing.assert_close(outputs(on_disk), before)
