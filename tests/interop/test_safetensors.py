"""safetensors: a model's file holds every parameter once, and loads."""

import pytest
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn


def names(model: nn.Module) -> set[str]:
    return {key for key, _ in [*model.named_parameters(), *model.named_buffers()]}


def test_a_model_saved_is_the_model_loaded(model, other, train, same, tmp_path):
    train(model)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert set(load_file(tmp_path / "model.safetensors")) == names(model) == set(model.state_dict())
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    same(model, other)


def test_a_state_dict_saved_is_the_one_loaded(model, other, train, same, tmp_path):
    train(model)
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    same(model, other)


def test_one_expert_of_a_stack_is_as_large_as_one_of_a_list(build, tmp_path):
    for name in ("list", "stack"):
        save_file(build(name).experts[2].state_dict(), tmp_path / name)
    assert (tmp_path / "stack").stat().st_size == (tmp_path / "list").stat().st_size
    expert = build("list", seed=1).experts[0]
    expert.load_state_dict(load_file(tmp_path / "stack"))
    assert all(p.equal(q) for p, q in zip(expert.parameters(), build("list").experts[2].parameters(), strict=True))


@pytest.mark.parametrize(("saved", "loaded"), [("list", "stack"), ("stack", "list")])
def test_a_list_and_a_stack_load_what_the_other_saved(build, train, same, saved, loaded, tmp_path):
    model = build(saved)
    train(model)
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    other, again = build(loaded, seed=1), build(saved, seed=1)
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    again.load_state_dict(other.state_dict())
    same(model, again)
