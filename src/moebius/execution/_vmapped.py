"""Runs equal modules of any architecture at once: one of them is vmapped over the stacked tensors of all."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from moebius.core.module_views import named_tensors


def vmapped_outputs(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *inputs: Any,
    shared: bool = True,
    axis: int = 0,
) -> Any:
    """The outputs of S equal modules, from one of the modules and the tensors of all.

    Arguments:
        module: one of them, which is called with the tensors of each.
        tensors: name in the module → tensor (S, …).
        inputs: of every module if `shared`, else (S, …), the first axis that of the modules.
        shared: whether all modules have the same inputs.
        axis: position of the axis of the modules in the outputs.

    Example:
        >>> weights = {"weight": torch.ones(5, 3, 2), "bias": torch.zeros(5, 3)}
        >>> vmapped_outputs(nn.Linear(2, 3), weights, torch.zeros(7, 2), axis=1).shape
        torch.Size([7, 5, 3])
    """

    def call(tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
        with nullcontext() if shared else _RowMajorLinear():
            return functional_call(module, dict(tensors), inputs, tie_weights=False)

    if torch.compiler.is_exporting() and shared:
        # torch.export cannot trace a vmapped module.
        unbound = {name: tensor.unbind() for name, tensor in tensors.items()}
        count = len(next(iter(unbound.values())))
        each = [call({name: slices[e] for name, slices in unbound.items()}, *inputs) for e in range(count)]
        return torch.stack(each, axis)
    return torch.vmap(call, in_dims=(0, *[None if shared else 0] * len(inputs)), out_dims=axis)(dict(tensors), *inputs)


def stacked_tensors(modules: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Path → tensor (S, …) of S equal modules."""
    return {
        named[0][0]: torch.stack([tensor for *_, tensor in named])
        for named in zip(*map(named_tensors, modules), strict=True)
    }


class _RowMajorLinear(TorchFunctionMode):
    """Inside, a linear layer computes (W xᵀ)ᵀ and not x Wᵀ.

    Where modules have rows of their own, the gradient of W is then a product of row-major matrices. The other way round
    its result is (D, C), and MKL takes 30 times as long for C = 2 and D = 1,024.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = weight @ input.flatten(0, -2).transpose(0, 1)
    product = product if bias is None else product + bias.unsqueeze(1)
    return product.transpose(0, 1).unflatten(0, input.shape[:-1])
