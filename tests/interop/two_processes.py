"""One of two processes that train together: `python two_processes.py TOOL RANK FOLDER`; for test_ddp and test_fsdp2."""

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import moebius as mb
from conftest import NAMES, adam, batch, build, unused

STEPS, PIECES = 3, 2
UNUSED = ("list", "stack", "attentive", "several")


def pieces(step: int, rank: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This process' half of a step's rows, in pieces whose gradients add up."""
    halves = (tensor.chunk(2)[rank].chunk(PIECES) for tensor in batch(step))
    yield from zip(*halves, strict=True)


def train(model: nn.Module, rank: int) -> torch.optim.Optimizer:
    optimizer = adam(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        for x, labels in pieces(step, rank):
            (F.cross_entropy(model(x), labels) / PIECES).backward()
        optimizer.step()
        mb.step_routers(model)
    return optimizer


def ddp(rank: int, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each case's name, and what trains its model and gives the state."""

    def state(model: nn.Module) -> dict[str, Tensor]:
        train(DistributedDataParallel(model), rank)
        return model.state_dict()

    yield from ((name, partial(state, build(name))) for name in NAMES)
    yield from ((f"unused {pool}", partial(state, unused(pool))) for pool in UNUSED)


def fsdp2(rank: int, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each case's name, and what trains its model and gives the full state, and the folder of a sharded checkpoint."""
    # In-place operations on such an output would lose FSDP2's hook.
    warnings.filterwarnings("error", message=".*returned a view tensor")
    shard = partial(fully_shard, mesh=init_device_mesh("cpu", (2,)))

    def state(case: str, model: nn.Module, parts: list[nn.Module]) -> tuple[dict[str, Any], str]:
        for part in [*parts, model]:
            shard(part)
        optimizer = train(model, rank)
        both = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        dcp.save(both, checkpoint_id=folder / case)
        full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        return full, str(folder / case)

    def error(name: str) -> str:
        """Of a mixture whose experts are sharded one by one."""
        model = build(name)
        for part in [*model.experts, model]:  # pyright: ignore[reportGeneralTypeIssues]
            shard(part)
        try:
            train(model, rank)
        except mb.MoebiusError as error:
            return str(error)
        return "no error"

    yield from ((f"whole {name}", partial(state, f"whole {name}", build(name), [])) for name in NAMES)
    for name in ("stack", "ffn"):
        model = build(name)
        layers = [part for part in model.modules() if isinstance(part, mb.Stack | mb.Mixture | mb.layers.SparseFFN)]
        inside_first = [part for part in reversed(layers) if part is not model]
        yield f"layers {name}", partial(state, f"layers {name}", model, inside_first)
    yield from ((f"experts {name}", partial(error, name)) for name in ("list", "nested"))


if __name__ == "__main__":
    tool, rank, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    meeting = (folder / "meeting").as_uri()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    for case, result in {"ddp": ddp, "fsdp2": fsdp2}[tool](rank, folder):
        try:
            torch.save(result(), folder / f"{case}.{rank}")
        except Exception:
            (folder / f"{case}.{rank}.error").write_text(traceback.format_exc(), encoding="utf-8")
    dist.destroy_process_group()
