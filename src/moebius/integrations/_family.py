"""The contract of families: blocks of another library that compute mixtures, and hooks that read their routings."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moebius.core.routing import Routing

# Takes a function that makes the routing of a call. It is called only where the call is to be recorded.
Record = Callable[[Callable[[], Routing]], None]


class Family(ABC):
    """Blocks that route alike: how to recognise one, and how to read its routings with hooks.

    A family reads what a block computes; it replaces nothing, and it leaves nothing on a module but hooks.

    Attributes:
        general: whether a family goes by structure alone; such families are asked after all others.
    """

    general: bool = False

    @abstractmethod
    def recognises(self, block: nn.Module) -> bool:
        """Whether the module is a block of this family, by its class and parts; nothing is run."""

    @abstractmethod
    def attach(self, block: nn.Module, record: Record, outputs: bool) -> list[RemovableHandle]:
        """Hook the block's parts, so that each of its calls records one routing.

        Arguments:
            block: one that the family recognises.
            record: to be called once for each call of the block, with a function that makes the routing.
            outputs: whether the routings have to contain the outputs of all experts for all rows.

        Raises:
            MoebiusError: the family cannot give the outputs of all experts.
        """


def named_child(module: nn.Module, *names: str) -> nn.Module | None:
    """The first child with one of these names.

    Example:
        >>> named_child(nn.ModuleDict({"gate": nn.Linear(2, 3)}), "router", "gate")
        Linear(in_features=2, out_features=3, bias=True)
    """
    return next((child for name in names if (child := module._modules.get(name)) is not None), None)


def first_tensor(output: Any) -> Tensor:
    """The output itself, or the first of several that is a tensor of floating-point numbers.

    Example:
        >>> import torch
        >>> first_tensor((torch.tensor([1]), torch.tensor([0.5])))
        tensor([0.5000])
    """
    values = output if isinstance(output, tuple | list) else (output,)
    return next(value for value in values if isinstance(value, Tensor) and value.is_floating_point())
