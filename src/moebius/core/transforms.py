"""Whether code runs where our own operators cannot: transforms of torch.func, forward mode, second derivatives."""

import torch
from torch import Tensor
from torch._C._functorch import (  # pyright: ignore[reportMissingModuleSource]
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
)
from torch.autograd import forward_ad


def transform_active() -> bool:
    """Whether a `torch.func` transform or forward-mode differentiation is active on this thread.

    Neither can differentiate our operators, and under `vmap` no shape may depend on values. So all experts run on all
    rows.

    Example:
        >>> torch.func.vmap(lambda x: x * transform_active())(torch.ones(2))
        tensor([1., 1.])
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # type: ignore[attr-defined]


def is_vmapped(tensor: Tensor) -> bool:
    """Whether `vmap` maps over this tensor, at any level of transforms.

    Example:
        >>> torch.func.vmap(lambda x: x * is_vmapped(x))(torch.ones(2))
        tensor([1., 1.])
    """
    if torch.compiler.is_compiling():
        return False
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            return True
        tensor = get_unwrapped(tensor)
    return False


def needs_second_backward(gradient: Tensor) -> bool:
    """Whether this backward pass is itself differentiated (`create_graph`), or runs for many gradients at once."""
    return torch.is_grad_enabled() or transform_active() or is_batchedtensor(gradient)
