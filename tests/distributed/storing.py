"""Saves what several processes hold, and loads it in others."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from cases import SAVED, Case
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from training import batch, full, prepare

import moebius as mb


def momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state of the parameters that this process holds."""
    return {name: full(optimizer.state[p]["momentum_buffer"]) for name, p in model.named_parameters()}


def save(folder: Path, name: str, world: int, rank: int) -> Any:
    """Train two steps, save the model in both ways, and return what this process holds."""
    torch.manual_seed(0)
    model, called, reduce = prepare(SAVED[name], SAVED[name].build(), world)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        called(batch(step, 0, torch.float32)[0].chunk(world)[rank]).square().mean().backward()
        reduce()
        optimizer.step()
    mb.save(model, folder / f"model {name}")
    both = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.save(both, checkpoint_id=folder / f"shards {name}")
    path = folder / "a file"
    path.touch()
    rejected = "no error"
    try:
        mb.save(model, path)
    except mb.MoebiusError as error:
        rejected = str(error)
    return {key: full(value) for key, value in model.state_dict().items()}, momenta(model, optimizer), rejected


def load_both(folder: Path, name: str, case: Case, mesh: Any) -> Any:
    model = mb.distributed.expert_parallel(mb.load(folder / f"model {name}"), mesh)
    mb.save(model, folder / f"again {name}")
    state = {key: full(value) for key, value in model.state_dict().items()}
    other = mb.distributed.expert_parallel(case.build(), mesh)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    both = dict(zip(("model", "optimizer"), get_state_dict(other, optimizer), strict=True))
    dcp.load(both, checkpoint_id=folder / f"shards {name}")
    set_state_dict(other, optimizer, model_state_dict=both["model"], optim_state_dict=both["optimizer"])
    return state, {key: full(value) for key, value in other.state_dict().items()}, momenta(other, optimizer)
