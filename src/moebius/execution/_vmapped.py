"""Equal modules of any architecture at once: one of them, called with the stacked tensors of all."""

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
    """The outputs of S equal modules, of which one is at hand and the tensors of all.

    Arguments:
        module: stands for all: what computes, with any tensors in their place.
        tensors: name in the module → (S, …).
        inputs: of each of them if `shared`, else with an axis (S, …) first.
        shared: whether all have the same inputs.
        axis: where the axis of the modules stands in the outputs.
        around: a wrapper for the call of one.

    Example:
        >>> weights = {"weight": torch.ones(5, 3, 2), "bias": torch.zeros(5, 3)}
        >>> vmapped_outputs(nn.Linear(2, 3), weights, torch.zeros(7, 2), axis=1).shape
        torch.Size([7, 5, 3])
    """

    def one(tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
        return functional_call(module, dict(tensors), inputs, tie_weights=False)

    call = around(one)
    if torch.compiler.is_exporting() and shared:
        # torch.export does not get through a vmapped module.
        columns = {name: tensor.unbind() for name, tensor in tensors.items()}
        count = len(next(iter(columns.values())))
        return torch.stack([call({n: column[e] for n, column in columns.items()}, *inputs) for e in range(count)], axis)
    return torch.vmap(call, in_dims=(0, *[None if shared else 0] * len(inputs)), out_dims=axis)(dict(tensors), *inputs)


def tensors_by_part(module: nn.Module) -> dict[str, Tensor]:
    """The tensors in every part, each part once: torch does not put back what it swaps twice in one part."""
    return {
        f"{path}.{name}".removeprefix("."): tensor
        for path, part in module.named_modules()
        for table in (part._parameters, part._buffers)
        for name, tensor in table.items()
        if tensor is not None
    }


def stacked_tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """The tensors of equal modules, one on another."""
    named = [tensors_by_part(module) for module in modules]
    return {name: torch.stack([tensors[name] for tensors in named]) for name in named[0]}
