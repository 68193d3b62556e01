"""Equal experts that all run, as one product."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from moebius.errors import ArgumentError
from moebius.routing import Routing

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_UPDATING = (nn.modules.batchnorm._NormBase,)
_DROPPING = (nn.modules.dropout._DropoutNd,)


def stacked(
    experts: Sequence[nn.Module] | nn.ModuleList, x: Float[Tensor, "T ..."], routing: Routing
) -> Float[Tensor, "T E ..."]:
    """Run equal experts on the same rows at once.

    Experts whose class has a static method `stacked(experts, x) → (T, E, …)` run by that; others by one vmapped call
    over their stacked parameters.

    Arguments:
        experts: E modules that are equal but for the values of their parameters.
        x: T rows.
        routing: one without a selection: every expert sees every row.

    Returns:
        Their outputs, (T, E, …), as `loop` gives them.

    Raises:
        ArgumentError: the experts are unlike, the routing selects, or stacking would differ from the loop.

    Reference: ours; torch.func's model ensembling.
    """
    why = why_not(experts, routing)
    if why is not None:
        raise ArgumentError("execution", f"stacked {why}", "stacked", 'execution="loop"')
    own = own_product(experts[0])
    if own is not None:
        return own(experts, x)
    parameters = _stack([dict(expert.named_parameters()) for expert in experts])
    buffers = _stack([dict(expert.named_buffers()) for expert in experts])

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
        return functional_call(experts[0], (parameters, buffers), (x,))

    return torch.vmap(one, out_dims=1)(parameters, buffers)


def own_product(expert: nn.Module) -> Any:
    """The method `stacked` of the expert's class, if it belongs to the `forward` that the expert runs."""
    for part in type(expert).__mro__:
        if "stacked" in vars(part) or "forward" in vars(part):
            # A subclass with a forward of its own inherits a product that is not its own.
            return getattr(part, "stacked") if "stacked" in vars(part) else None  # noqa: B009 - Any, not Module's
    return None


def why_not(experts: Sequence[nn.Module] | nn.ModuleList, routing: Routing) -> str | None:
    """Why these experts cannot be stacked, as the end of a sentence; None when they can."""
    first = experts[0]
    if routing.selection is not None:
        return "needs every expert to see every row: the router selects"
    if any(type(expert) is not type(first) for expert in experts):
        return "needs equal experts: their classes differ"
    shape = [parameter.shape for parameter in first.parameters()]
    if any([parameter.shape for parameter in expert.parameters()] != shape for expert in experts):
        return "needs equal experts: their parameters' shapes differ"
    parts = [part for expert in experts for part in expert.modules()]
    if any(getattr(part, hooks, None) for part in parts for hooks in _HOOKS):
        return "differs from the loop where experts have hooks"
    if own_product(first) is not None:
        return None
    if any(str(expert) != str(first) or not _equal_settings(expert, first) for expert in experts):
        return "needs equal experts: their structures differ"
    if any(isinstance(part, _UPDATING) and part.training for part in parts):
        return "differs from the loop where batch statistics are updated"
    if any(isinstance(part, _DROPPING) and part.training and part.p for part in parts):
        return "differs from the loop where dropout is active"
    return None


def _equal_settings(expert: nn.Module, first: nn.Module) -> bool:
    """Whether what a forward can read besides parameters and buffers is the same."""
    if expert is first:
        return True
    pairs = zip(expert.modules(), first.modules(), strict=True)
    return all(_same(_settings(one), _settings(other)) for one, other in pairs)


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name == "training" or not name.startswith("_")}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one is other or (type(one) is type(other) and not isinstance(one, Tensor) and bool(one == other))


def _stack(named: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in named]) for name in named[0]}
