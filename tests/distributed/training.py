"""Trains a case on one process, or on one of several."""

from collections.abc import Callable
from typing import Any

import torch
from cases import CLASSES, FEATURES, ROWS, Case
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import moebius as mb


def batch(step: int, piece: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, targets and numbers beside the rows of a piece of a step."""
    generator = torch.Generator().manual_seed(100 * step + piece)
    x = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64).to(dtype)
    return x, x[:, :CLASSES].sin() * 2, x.sum(1)


def shares(case: Case, world: int) -> list[int]:
    """How many rows of a batch each process has."""
    if case.sizes is None:
        return [ROWS // world] * world
    step = len(case.sizes) // world
    return [sum(case.sizes[first : first + step]) for first in range(0, len(case.sizes), step)]


def loss_of(case: Case, model: nn.Module, rows: tuple[Tensor, Tensor, Tensor], processes: int) -> tuple[Tensor, ...]:
    """Output, loss and balance loss; the loss is a mean over rows, or with sums a share of the mean over all rows."""
    x, target, shift = rows
    is_mean = (case.options or {}).get("gradients") == "mean"

    def run(x: Tensor) -> Tensor:
        with mb.context(shift=shift):
            return model(x)

    balance = x.new_zeros(())
    if case.balance:
        with mb.record(model) as log:
            y = run(x)
        balance = sum((mb.losses.switch_balance(r) for routings in log.values() for r in routings), balance)
    else:
        y = checkpoint(run, x, use_reentrant=False) if case.checkpoints else run(x)
    errors = (y - target).square().sum()
    fit = errors / (len(x) if is_mean else ROWS)
    return y, (fit + case.balance * balance) / case.pieces, balance


def prepare(case: Case, model: nn.Module, world: int) -> tuple[nn.Module, nn.Module, Callable[[], None]]:
    """The model on the mesh, what is called in its place, and what reduces its gradients."""
    options = case.options or {}
    if "mesh" in case.way:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "expert"))
    else:
        mesh = init_device_mesh("cpu", (world,))
    mb.distributed.expert_parallel(model, mesh, **options)
    nothing = lambda: None  # noqa: E731
    if case.way == "ddp":
        return model, DistributedDataParallel(model), nothing
    if case.way == "fsdp":
        fully_shard(model, mesh=mesh, ignored_params=mb.distributed.expert_parameters(model))
        return model, model, nothing
    if case.way == "mesh fsdp":
        for part in model.modules():
            if isinstance(part, mb.Stack):
                fully_shard(part, mesh=mesh["data"])
        experts = mb.distributed.expert_parameters(model)
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)), ignored_params=experts)
        return model, model, nothing
    return model, model, lambda: mb.distributed.reduce_gradients(model)


def full(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def train(case: Case, dtype: torch.dtype, world: int, rank: int, alone: bool) -> dict[str, Any]:
    """The results of a case: of one process on the rows of all `world` processes, or of one of these."""
    torch.manual_seed(0)
    model = case.build().to(dtype)
    called, reduce = model, lambda: None
    if not alone:
        if rank:  # the processes begin with the values of the first one
            torch.manual_seed(rank)
            model = case.build().to(dtype)
        model, called, reduce = prepare(case, model, world)
    groups = model.parameters() if alone else mb.distributed.parameter_groups(model)
    name, options = case.optimizer
    optimizer = getattr(torch.optim, name)(groups, **options)
    clip = torch.nn.utils.clip_grad_norm_ if alone else mb.distributed.clip_grad_norm_
    results: dict[str, Any] = {"y": [], "balance": [], "norm": []}
    for step in range(case.steps):
        optimizer.zero_grad()
        for piece in range(case.pieces):
            rows = batch(step, piece, dtype)
            parts = [*zip(*(value.split(shares(case, world)) for value in rows), strict=True)]
            if not alone:
                y, loss, balance = loss_of(case, called, parts[rank], world)
                loss.backward()
            elif case.by_process:
                ys = []
                for part in parts:
                    y, loss, balance = loss_of(case, model, part, world)
                    (loss / world).backward()
                    ys.append(y)
                y = torch.cat(ys)
            else:
                y, loss, balance = loss_of(case, model, rows, 1)
                loss.backward()
            if step == 0:
                results["y"].append(y.detach())
            results["balance"].append(float(balance.detach()))
        reduce()
        if step == 0:
            results["gradients"] = {
                key: None if p.grad is None else full(p.grad) for key, p in model.named_parameters()
            }
        results["norm"].append(float(clip(model.parameters(), 0.7)))
        if step == 0:
            results["clipped"] = {key: None if p.grad is None else full(p.grad) for key, p in model.named_parameters()}
        optimizer.step()
        mb.step_routers(model)
        if step == 0:
            results["first"] = {key: full(value) for key, value in model.state_dict().items()}
    results["last"] = {key: full(value) for key, value in model.state_dict().items()}
    return results
