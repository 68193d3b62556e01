"""Networks that begin anew: with parameters as their constructors draw them."""

import copy

import torch
from torch import nn

from moebius.kit.errors import MoebiusError
from moebius.storage.spec import build, describe, room_of, unknown_parts


def fresh(module: nn.Module, seed: int) -> nn.Module | None:
    """The same network with parameters that are drawn anew; None where nothing tells how.

    A component of a known kind is made by its constructor. Of any other each part with `reset_parameters` is reset;
    there has to be one for every parameter.

    Arguments:
        module: stays as it is.
        seed: of the draw; the generators outside stay as they are.

    Example:
        >>> fresh(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), seed=0) is not None
        True
    """
    parameter = next(module.parameters(), None)
    if parameter is None:
        return None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        again = _built(module)
        if again is None:
            again = _reset(copy.deepcopy(module))
    return None if again is None else again.to(parameter.device, parameter.dtype).train(module.training)


def _built(module: nn.Module) -> nn.Module | None:
    try:
        spec = describe(module)
        return None if any(unknown_parts(spec)) else build(spec, room_of(module))
    except (MoebiusError, LookupError):
        return None


def _reset(module: nn.Module) -> nn.Module | None:
    reset: set[int] = set()
    for part in module.modules():
        if callable(function := getattr(part, "reset_parameters", None)):
            function()
            reset |= {id(parameter) for parameter in part.parameters()}
    return module if all(id(parameter) in reset for parameter in module.parameters()) else None
