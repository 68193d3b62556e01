"""Runs equal modules of any architecture at once: one of them is vmapped over the stacked tensors of all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from moebius.core.module_views import named_tensors


def vmapped_outputs(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *inputs: Tensor,
    shared: bool = True,
    axis: int = 0,
) -> Any:
    """The outputs of S equal modules, from one of the modules and the tensors of all.

    Arguments:
        module: one of them, which is called with the tensors of each.
        tensors: name in the module → tensor (S, …).
        inputs: tensors, of every module if `shared`, else (S, …), the first axis that of the modules.
        shared: whether all modules have the same inputs.
        axis: position of the axis of the modules in the outputs.

    Example:
        >>> weights = {"weight": torch.ones(5, 3, 2), "bias": torch.zeros(5, 3)}
        >>> vmapped_outputs(nn.Linear(2, 3), weights, torch.zeros(7, 2), axis=1).shape
        torch.Size([7, 5, 3])
    """

    names = list(tensors)

    def call(values: Sequence[Tensor], *shared_inputs: Tensor) -> Any:
        own_inputs = values[len(names) :]
        named = dict(zip(names, values, strict=False))
        return functional_call(module, named, (*own_inputs, *shared_inputs), tie_weights=False)

    if torch.compiler.is_exporting() and shared:
        # torch.export cannot trace a vmapped module.
        each = [call(values, *inputs) for values in zip(*map(torch.unbind, tensors.values()), strict=True)]
        return torch.stack(each, axis)
    # One list: torch.vmap spends tens of microseconds on the structure of nested arguments.
    if shared:
        return torch.vmap(call, in_dims=(0, *[None] * len(inputs)), out_dims=axis)([*tensors.values()], *inputs)
    return torch.vmap(call, in_dims=0, out_dims=axis)([*tensors.values(), *inputs])


def stacked_tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Path → tensor (S, …) of S equal modules."""
    return {
        named[0][0]: torch.stack([tensor for *_, tensor in named])
        for named in zip(*map(named_tensors, modules), strict=True)
    }
