"""Equal experts that all run, as one product."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from moebius.equal import hooked, unlike
from moebius.errors import ArgumentError
from moebius.execution._rowwise import through, why_not_rowwise
from moebius.routing import Routing
from moebius.stack import Stack

_UPDATING = (nn.modules.batchnorm._NormBase,)
_DROPPING = (nn.modules.dropout._DropoutNd,)


def stacked(
    experts: Sequence[nn.Module] | nn.ModuleList | Stack, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "T E ..."]:
    """Run equal experts on the same rows at once; of unlike ones, those that are equal.

    The dense layers of a `Stack` become one product each. Of other experts, those whose class has a static method
    `stacked(experts, x) → (T, E, …)` run by that; the rest by one vmapped call over stacked parameters, which lie ready
    in a `Stack` and are laid together in every call for a list of modules.

    Arguments:
        experts: E modules; those that are equal but for the values of their parameters run together.
        x: T rows.
        routing: one without a selection: every expert sees every row.

    Returns:
        Their outputs, (T, E, …), as `loop` gives them.

    Raises:
        ArgumentError: no two experts are equal, the routing selects, or stacking would differ from the loop.

    Reference: ours; torch.func's model ensembling.
    """
    why = why_not(experts, routing)
    if why is not None:
        raise ArgumentError("execution", f"stacked {why}", "stacked", 'execution="loop"')
    if isinstance(experts, Stack):
        return _of_stack(experts, x)
    experts = list(experts)
    alike = groups(experts)
    if len(alike) == 1:
        return _together(experts, x)
    columns: list[Tensor] = [x] * len(experts)
    for numbers in alike:
        several = _together([experts[number] for number in numbers], x) if len(numbers) > 1 else None
        for place, number in enumerate(numbers):
            columns[number] = experts[number](x) if several is None else several[:, place]
    return torch.stack(columns, 1)


def groups(experts: Sequence[nn.Module]) -> list[list[int]]:
    """The numbers of the experts, those that are equal together.

    Example:
        >>> groups([nn.Linear(2, 3), nn.ReLU(), nn.Linear(2, 3)])
        [[0, 2], [1]]
    """
    found: list[list[int]] = []
    for number, expert in enumerate(experts):
        same = next((numbers for numbers in found if unlike([experts[numbers[0]], expert]) is None), None)
        if same is None:
            found.append([number])
        else:
            same.append(number)
    return found


def own_product(expert: nn.Module) -> Any:
    """The method `stacked` of the expert's class, if it belongs to the `forward` that the expert runs."""
    for part in type(expert).__mro__:
        if "stacked" in vars(part) or "forward" in vars(part):
            # A subclass with a forward of its own inherits a product that is not its own.
            return getattr(part, "stacked") if "stacked" in vars(part) else None  # noqa: B009 - Any, not Module's
    return None


def why_not(experts: Sequence[nn.Module] | nn.ModuleList | Stack, routing: Routing) -> str | None:
    """Why these experts cannot be stacked, as the end of a sentence; None when they can."""
    if routing.selection is not None:
        return "needs every expert to see every row: the router selects"
    stack = isinstance(experts, Stack)
    experts = [experts.stacked] if stack else list(experts)
    if hooked(experts):
        return "differs from the loop where experts have hooks"
    why = unlike(experts)
    if why is not None and all(len(numbers) == 1 for numbers in groups(experts)):
        return f"needs equal experts: {why}"
    # The products of classes care for their dropout themselves.
    vmapped = [expert for expert in experts if stack or own_product(expert) is None]
    parts = [part for expert in vmapped for part in expert.modules()]
    if any(isinstance(part, _UPDATING) and part.training for part in parts):
        return "differs from the loop where batch statistics are updated"
    if any(isinstance(part, _DROPPING) and part.training and part.p for part in parts):
        return "differs from the loop where dropout is active"
    return None


def _together(experts: Sequence[nn.Module], x: Tensor) -> Tensor:
    own = own_product(experts[0])
    if own is not None:
        return own(experts, x)
    parameters = _laid_together([_held(expert, "_parameters") for expert in experts])
    buffers = _laid_together([_held(expert, "_buffers") for expert in experts])
    if not parameters and not buffers:
        return torch.stack([expert(x) for expert in experts], 1)
    return _vmapped(experts[0], parameters, buffers, x)


def _of_stack(stack: Stack, x: Tensor) -> Tensor:
    parameters, buffers = _held(stack.stacked, "_parameters"), _held(stack.stacked, "_buffers")
    if not parameters and not buffers:
        return torch.stack([stack.stacked(x)] * len(stack), 1)
    if why_not_rowwise(stack, x) is None:
        return through(stack.stacked, x, _Columns(len(stack)))
    return _vmapped(stack.stacked, parameters, buffers, x)


class _Columns:
    """A dense layer of all experts: of the rows as they come at first, then of each expert's own column."""

    def __init__(self, experts: int):
        self.experts, self.begun = experts, False

    def __call__(self, linear: nn.Linear, x: Tensor) -> Tensor:
        weight, bias = linear.weight, linear.bias
        if not self.begun:
            self.begun = True
            y = F.linear(x, weight.flatten(0, 1), None if bias is None else bias.flatten())
            return y.unflatten(-1, (self.experts, -1))
        columns = x.transpose(0, 1)
        if bias is None:
            return torch.bmm(columns, weight.transpose(1, 2)).transpose(0, 1)
        return torch.baddbmm(bias.unsqueeze(1), columns, weight.transpose(1, 2)).transpose(0, 1)


def _vmapped(expert: nn.Module, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
        return functional_call(expert, (parameters, buffers), (x,), tie_weights=False)

    if torch.compiler.is_exporting():
        # torch.export does not get through a vmapped module.
        columns = [{name: t.unbind() for name, t in named.items()} for named in (parameters, buffers)]
        count = next(iter((parameters or buffers).values())).shape[0]
        each = [[{name: column[e] for name, column in named.items()} for named in columns] for e in range(count)]
        return torch.stack([one(*tensors) for tensors in each], 1)
    return torch.vmap(one, out_dims=1)(parameters, buffers)


def _held(module: nn.Module, table: str) -> dict[str, Tensor]:
    """The tensors in every part, each part once: torch does not put back what it swaps twice in one part."""
    return {
        f"{path}.{name}".removeprefix("."): tensor
        for path, part in module.named_modules()
        for name, tensor in getattr(part, table).items()
        if tensor is not None
    }


def _laid_together(named: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in named]) for name in named[0]}
