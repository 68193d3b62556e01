"""What a compiler leaves to Python. Importing it imports a good part of torch's compiler."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from moebius.stack import Stack


@torch.compiler.disable(reason="an expert of a stack has hooks, a mode or settings of its own")
def particulars_of(stack: "Stack") -> dict[int, nn.Module]:
    """What `stack.particulars()` gives.

    Example:
        >>> import moebius as mb
        >>> particulars_of(mb.Stack([nn.Linear(4, 3)]))
        {}
    """
    return stack.particulars()
