"""Runs equal modules of any architecture at once: one of them is vmapped over the stacked tensors of all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def vmapped_outputs(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *inputs: Any,
    shared: bool = True,
    axis: int = 0,
    around: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda call: call,
) -> Any:
    """The outputs of S equal modules, from one of the modules and the tensors of all.

    Arguments:
        module: one of them, which is called with the tensors of each.
        tensors: name in the module → tensor (S, …).
        inputs: of every module if `shared`, else (S, …), the first axis that of the modules.
        shared: whether all modules have the same inputs.
        axis: position of the axis of the modules in the outputs.
        around: a wrapper for the function that calls one module with its tensors and inputs.

    Example:
        >>> weights = {"weight": torch.ones(5, 3, 2), "bias": torch.zeros(5, 3)}
        >>> vmapped_outputs(nn.Linear(2, 3), weights, torch.zeros(7, 2), axis=1).shape
        torch.Size([7, 5, 3])
    """

    def call_module(tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
        return functional_call(module, dict(tensors), inputs, tie_weights=False)

    call = around(call_module)
    if torch.compiler.is_exporting() and shared:
        # torch.export cannot trace a vmapped module.
        unbound = {name: tensor.unbind() for name, tensor in tensors.items()}
        count = len(next(iter(unbound.values())))
        each = [call({name: slices[e] for name, slices in unbound.items()}, *inputs) for e in range(count)]
        return torch.stack(each, axis)
    return torch.vmap(call, in_dims=(0, *[None if shared else 0] * len(inputs)), out_dims=axis)(dict(tensors), *inputs)


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Path → tensor for all parameters and buffers; a shared submodule counts once.

    torch.func.functional_call would not restore a tensor that it replaces twice in the same submodule.
    """
    return {
        f"{path}.{name}".removeprefix("."): tensor
        for path, submodule in module.named_modules()
        for table in (submodule._parameters, submodule._buffers)
        for name, tensor in table.items()
        if tensor is not None
    }


def stacked_tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Path → tensor (S, …) of S equal modules."""
    by_module = [named_tensors(module) for module in modules]
    return {name: torch.stack([tensors[name] for tensors in by_module]) for name in by_module[0]}
