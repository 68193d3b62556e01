"""What operators of ours do not see through: transforms of torch.func, forward mode, second derivatives."""

import torch
from torch import Tensor
from torch._C._functorch import is_batchedtensor  # pyright: ignore[reportMissingModuleSource]
from torch.autograd import forward_ad


def transforming() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work on this thread.

    Neither sees through an operator, and under `vmap` no shape may depend on values: then all experts run on all rows.

    Example:
        >>> torch.func.vmap(lambda x: x * transforming())(torch.ones(2))
        tensor([1., 1.])
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0  # type: ignore[attr-defined]


def differentiated_again(gradient: Tensor) -> bool:
    """Whether this backward pass is itself differentiated (`create_graph`), or runs for many gradients at once."""
    return torch.is_grad_enabled() or transforming() or is_batchedtensor(gradient)
