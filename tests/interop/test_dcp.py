"""torch.distributed.checkpoint: state of models and optimizers, saved and loaded by one process."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:torch.distributed is disabled, unavailable or uninitialized:UserWarning",
)


@pytest.mark.parametrize("options", [None, StateDictOptions(full_state_dict=True, cpu_offload=True)])
def test_state_of_a_model(model, other, train, same, options):
    train(model)
    state = get_model_state_dict(model, options=options)
    assert set(state) == {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    assert set_model_state_dict(other, state, options=options) == ([], [])
    same(model, other)


@pytest.mark.parametrize("get", [get_model_state_dict, torch.nn.Module.state_dict])
def test_a_folder_of_a_model(model, other, train, same, get, tmp_path):
    train(model)
    dcp.save({"model": get(model)}, checkpoint_id=tmp_path / "folder")
    state = {"model": get(other)}
    dcp.load(state, checkpoint_id=tmp_path / "folder")
    other.load_state_dict(state["model"])
    same(model, other)


def test_a_model_and_its_optimizer_go_on_as_if_never_saved(model, other, train, adam, same, tmp_path):
    optimizer, fresh = train(model), adam(other)
    parts = get_state_dict(model, optimizer)
    dcp.save(dict(zip(("model", "optimizer"), parts, strict=True)), checkpoint_id=tmp_path / "folder")
    state = dict(zip(("model", "optimizer"), get_state_dict(other, fresh), strict=True))
    dcp.load(state, checkpoint_id=tmp_path / "folder")
    set_state_dict(other, fresh, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    same(model, other)
    train(model, optimizer=optimizer, first=3)
    train(other, optimizer=fresh, first=3)
    same(model, other)


def test_the_optimizer_knows_its_state_by_the_names_of_parameters(model, train):
    _, state = get_state_dict(model, train(model))
    assert set(state["state"]) == {name for name, _ in model.named_parameters()}
