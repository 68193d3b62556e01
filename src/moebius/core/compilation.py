"""Functions that a compiler leaves to Python. Importing this module imports a good part of torch's compiler."""

from typing import Any

import torch
from torch import nn


@torch.compiler.disable(reason="an expert of a stack has hooks, a mode or settings of its own")
def differing_experts(stack: Any) -> dict[int, nn.Module]:
    """`stack.differing_experts()`, outside of compiled code.

    Example:
        >>> import moebius as mb
        >>> differing_experts(mb.Stack([nn.Linear(4, 3)]))
        {}
    """
    return stack.differing_experts()
