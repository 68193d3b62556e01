"""Where the tensors of a layer and of a block of transformers correspond."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from moebius.convert._form import layer_parts
from moebius.convert._transformers import block_router, block_shared

# A module and the name of its tensor.
Place = tuple[Any, str]
_BIAS = "e_score_correction_bias"


def fill_layer(layer: nn.Module, block: Any) -> None:
    """Give a layer the tensors of a block: the same parameters, copies where the layer has two matrices in one."""
    for (part, name), (source, source_name) in _equal_places(layer, block):
        setattr(part, name, getattr(source, source_name))
    for (part, name), sources in _joined_places(layer, block):
        halves = [getattr(source, source_name) for source, source_name in sources]
        is_trained = any(half.requires_grad for half in halves)
        setattr(part, name, nn.Parameter(torch.cat([half.detach() for half in halves]), is_trained))
    router = layer_parts(layer)[0].router
    if router.bias is not None:
        router.bias = getattr(block_router(block), _BIAS).detach().float()


def fill_block(block: Any, layer: nn.Module) -> None:
    """Give a block the tensors of a layer: the same parameters, copies where the layer has two matrices in one."""
    for (part, name), (target, target_name) in _equal_places(layer, block):
        setattr(target, target_name, getattr(part, name))
    for (part, name), targets in _joined_places(layer, block):
        joined = getattr(part, name)
        for half, (target, target_name) in zip(joined.detach().chunk(2), targets, strict=True):
            setattr(target, target_name, nn.Parameter(half.clone(), joined.requires_grad))
    router = layer_parts(layer)[0].router
    if router.bias is not None:
        setattr(block_router(block), _BIAS, router.bias.to(getattr(block_router(block), _BIAS).dtype))


def _equal_places(layer: nn.Module, block: Any) -> Iterator[tuple[Place, Place]]:
    """Tensors that both have."""
    mixture, shared, shared_gate = layer_parts(layer)
    gate: Any = mixture.gate
    yield (gate.linear, "weight"), (block_router(block), "weight")
    yield (mixture.experts, "inner_weight"), (block.experts, "gate_up_proj")
    yield (mixture.experts, "outer_weight"), (block.experts, "down_proj")
    if shared is not None:
        for name in _linear_names(shared.outer):
            yield (shared.outer, name), (block_shared(block).down_proj, name)
    if shared_gate is not None:
        yield (shared_gate.linear, "weight"), (block.shared_expert_gate, "weight")


def _joined_places(layer: nn.Module, block: Any) -> Iterator[tuple[Place, tuple[Place, Place]]]:
    """Tensors of the layer's shared expert that are two in the block: W_g above W_u."""
    shared = layer_parts(layer)[1]
    if shared is not None:
        expert = block_shared(block)
        for name in _linear_names(shared.inner):
            yield (shared.inner, name), ((expert.gate_proj, name), (expert.up_proj, name))


def _linear_names(linear: Any) -> tuple[str, ...]:
    return ("weight",) if linear.bias is None else ("weight", "bias")
