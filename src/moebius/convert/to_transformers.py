"""A layer of this library → a block of transformers."""

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from moebius.convert._form import read_layer
from moebius.convert._tensors import fill_block
from moebius.convert._transformers import is_block, read_block
from moebius.kit.errors import ArgumentError


def to_transformers(layer: nn.Module, like: Any) -> nn.Module:
    """Make the mixture-of-experts block of transformers that computes what a layer computes: back from a conversion.

    Memory: as for `from_transformers`, the block has the layer's own parameters, and copies of the two matrices that
    the layer's shared expert has in one tensor. `to_transformers(from_transformers(block), like=block)` has the block's
    values to the bit.

    Arguments:
        layer: what `from_transformers` made, also one that was trained, saved and loaded since; or a layer of such a
            form that was built here.
        like: a block whose class, settings and configuration the result has; its values are not read. Or the
            configuration of a model, for the first block of this model that can be converted.

    Returns:
        The block, in the layer's mode, number format and device.

    Raises:
        ArgumentError: the layer has parts that no block has, or computes something else than blocks like this one; the
            message names what differs.
        MissingExtraError: transformers is not installed.

    Example:
        >>> block = model.model.layers[0].mlp  # doctest: +SKIP
        >>> layer = mb.convert.from_transformers(block)  # doctest: +SKIP
        >>> model.model.layers[0].mlp = mb.convert.to_transformers(layer, like=block)  # doctest: +SKIP

    Reference: transformers 5, the `SparseMoeBlock` of each model.
    """
    like = like if isinstance(like, nn.Module) else _first_block(like)
    form, expected = read_layer(layer), read_block(like)
    for field in fields(form):
        value, like_value = getattr(form, field.name), getattr(expected, field.name)
        if value != like_value:
            rule = f"blocks like this {type(like).__name__} have {like_value!r}"
            fix = f"like=a block, or the configuration of a model, that has {field.name} {value!r}"
            raise ArgumentError(f"layer: {field.name}", rule, value, fix)
    block = _empty_copy(like)
    fill_block(block, layer)
    return block.train(layer.training)


def _first_block(config: Any) -> nn.Module:
    """The first block that can be converted of a configuration's model, without values."""
    from transformers import AutoModelForCausalLM, PreTrainedConfig

    if not isinstance(config, PreTrainedConfig):
        rule = "needs to be a block of transformers, or the configuration of a model"
        raise ArgumentError("like", rule, type(config).__name__, "like=model.config")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    block = next((part for part in model.modules() if is_block(part)), None)
    if block is None:
        rule = "no block of its model can be converted"
        raise ArgumentError("like", rule, type(config).__name__, "like=model.model.layers[0].mlp")
    return block


def _empty_copy(block: nn.Module) -> nn.Module:
    """A copy without values, whose configuration is the block's: a model sets the implementation of experts there."""
    memo: dict[int, Any] = {}
    for part in block.modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            empty = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(empty) if name in part._parameters else empty
        if (config := vars(part).get("config")) is not None:
            memo[id(config)] = config
    return copy.deepcopy(block, memo)
