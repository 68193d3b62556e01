"""A model whose experts are on several processes, whole again in one of them for a while."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from moebius.core.module_views import named_tensors
from moebius.core.stack import Stack
from moebius.distributed.layout import shared_pools
from moebius.execution._remote_expert import RemoteExpert
from moebius.kit.errors import MoebiusError


def is_split(model: nn.Module) -> bool:
    """Whether tensors of a model are on other processes: those of experts, or shards of FSDP2."""
    sharded = any(isinstance(tensor, DTensor) for *_, tensor in named_tensors(model))
    return sharded or next(shared_pools(model), None) is not None


@contextmanager
def whole_model(model: nn.Module) -> Iterator[bool]:
    """Inside the block the model of the first process has all experts, and whole tensors on the CPU.

    Every process has to enter the block, which yields whether it is the first. The other models stay as they are. At
    the end all have their parts again, the same objects. If the block raises an error in the first process, the others
    raise it, too, in the place of waiting.

    Arguments:
        model: what `expert_parallel` returned, or FSDP2 has sharded.
    """
    is_first = dist.get_rank() == 0
    model.state_dict()  # FSDP2 registers its shards here, where whole parameters have remained after a forward
    replacements = [*_whole_tensors(model, is_first), *_whole_experts(model, is_first)]
    outcome: list[Any] = [None]
    try:
        if is_first:
            with _replaced(model, replacements):
                yield True
        else:
            yield False
    except Exception as error:
        outcome = [error if isinstance(error, MoebiusError | OSError) else RuntimeError(str(error))]
    dist.broadcast_object_list(outcome)
    if outcome[0] is not None:
        raise outcome[0]


# A table of a module, a key in it, and the value for the block.
_Replacement = tuple[dict[str, Any], str, Any]


@torch.no_grad()
def _whole_tensors(model: nn.Module, is_first: bool) -> list[_Replacement]:
    """Whole tensors in the place of DTensors."""
    whole: dict[int, Tensor] = {}
    replacements: list[_Replacement] = []
    for _, part, table, key, tensor in [*named_tensors(model)]:
        if isinstance(tensor, DTensor):
            if id(tensor) not in whole:
                values = tensor.full_tensor()
                whole[id(tensor)] = values.cpu() if is_first else values.new_empty(0)
                if table == "_parameters":
                    whole[id(tensor)] = nn.Parameter(whole[id(tensor)], tensor.requires_grad)
            replacements.append((getattr(part, table), key, whole[id(tensor)]))
    return replacements if is_first else []


@torch.no_grad()
def _whole_experts(model: nn.Module, is_first: bool) -> list[_Replacement]:
    """Experts with their values in the place of those that other processes hold."""
    replacements: list[_Replacement] = []
    for _, pool, dispatcher in shared_pools(model):
        if isinstance(pool, Stack):
            continue
        placement = dispatcher.placement
        group, device = placement.mesh.get_group(), placement.mesh.device_type
        for number, expert in enumerate(pool):
            owner = placement.owner(number)
            network = expert.network if isinstance(expert, RemoteExpert) else expert
            if is_first and isinstance(expert, RemoteExpert):
                network = copy.deepcopy(network).to_empty(device="cpu")
                replacements.append((pool._modules, str(number), network))
            for *_, tensor in named_tensors(network):
                values = tensor.detach() if owner == placement.rank else torch.empty_like(tensor, device=device)
                dist.broadcast(values.contiguous() if owner == placement.rank else values, group=group, group_src=owner)
                if is_first and owner != placement.rank:
                    tensor.copy_(values)
    return replacements


@contextmanager
def _replaced(model: nn.Module, replacements: list[_Replacement]) -> Iterator[None]:
    """Inside the block the tables hold other values, no pool has a dispatcher, and FSDP2's classes are those before."""
    tables = [*replacements, *((vars(pool), "dispatcher", None) for _, pool, _ in shared_pools(model))]
    before = [(table, key, table[key]) for table, key, _ in tables]
    classes = [(part, type(part)) for part in model.modules() if type(part).__bases__[0].__name__ == "FSDPModule"]
    try:
        for table, key, value in tables:
            if value is None:
                del table[key]
            else:
                table[key] = value
        for part, kind in classes:
            part.__class__ = kind.__bases__[1]
        yield
    finally:
        for table, key, value in before:
            table[key] = value
        for part, kind in classes:
            part.__class__ = kind
