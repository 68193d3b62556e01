"""Equal experts that all run, as one product."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from moebius.errors import ArgumentError
from moebius.routing import Routing


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
    own = getattr(type(experts[0]), "stacked", None)
    if own is not None:
        return own(experts, x)
    parameters = _stack([dict(expert.named_parameters()) for expert in experts])
    buffers = _stack([dict(expert.named_buffers()) for expert in experts])

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
        return functional_call(experts[0], (parameters, buffers), (x,))

    return torch.vmap(one, out_dims=1)(parameters, buffers)


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
    if hasattr(type(first), "stacked"):
        return None
    if any(str(expert) != str(first) for expert in experts):
        return "needs equal experts: their structures differ"
    if first.training and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in first.modules()):
        return "differs from the loop where batch statistics are updated"
    if first.training and any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p for part in first.modules()):
        return "differs from the loop where dropout is active"
    return None


def _stack(named: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([one[name] for one in named]) for name in named[0]}
