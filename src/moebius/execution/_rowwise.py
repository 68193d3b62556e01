"""Experts whose dense layers can be computed for rows of several experts at once.

Such an expert treats every row by itself, and all its parameters are those of dense layers. An execution then says how
a layer of all experts meets the rows, and the rest of the expert computes as it is.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from torch import Tensor, nn

from moebius.equal import hooked
from moebius.stack import Stack

Layer = Callable[[nn.Linear, Tensor], Tensor]

# Modules of torch without parameters that treat every number, or every row, by itself.
_PLAIN = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardswish,
)


def why_not_rowwise(experts: Any, x: Tensor) -> str | None:
    """Why these experts cannot be computed layer by layer for these rows, as the end of a sentence; else None."""
    if not isinstance(experts, Stack):
        return "needs experts that share stacked parameters: mb.Stack(experts)"
    if not _rowwise(experts.stacked):
        return f"needs experts of dense layers, and {type(experts.stacked).__name__} is or holds something else"
    if hooked([experts.stacked]):
        return "does not call the experts, and they have hooks"
    if any(isinstance(part, nn.Dropout) and part.training and part.p for part in experts.stacked.modules()):
        return "draws for other rows than the loop where dropout is active"
    if x.ndim != 2 and not _makes_vectors(experts.stacked, x):
        return f"needs rows that are vectors, and these are of shape {tuple(x.shape[1:])}"
    return None


def through(module: nn.Module, x: Tensor, layer: Layer) -> Tensor:
    """What the module's forward computes, with `layer(linear, x)` in the place of each dense layer.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> through(network, torch.zeros(5, 2), lambda linear, x: linear(x)).shape
        torch.Size([5, 3])
    """
    if type(module) is nn.Linear:
        return layer(module, x)
    if type(module) is nn.Sequential:
        for part in module:
            x = through(part, x, layer)
        return x
    own = _own_way(module)
    return module(x) if own is None else own(module, x, layer)


def _own_way(module: nn.Module) -> Any:
    """The method `rowwise` of the module's class, if it belongs to the `forward` that the module runs."""
    for part in type(module).__mro__:
        if "rowwise" in vars(part) or "forward" in vars(part):
            return vars(part).get("rowwise")
    return None


def _rowwise(module: nn.Module, first: bool = True) -> bool:
    if type(module) is nn.Sequential:
        return all(_rowwise(part, first and place == 0) for place, part in enumerate(module))
    if type(module) is nn.Flatten:
        # Behind a dense layer of all experts it would merge what they say.
        return first and (module.start_dim, module.end_dim) == (1, -1)
    return type(module) in (nn.Linear, *_PLAIN) or _own_way(module) is not None


def _makes_vectors(module: nn.Module, x: Tensor) -> bool:
    """Whether it merges the axes of its rows before anything else."""
    if type(module) is nn.Sequential and len(module):
        return _makes_vectors(module[0], x)
    features = getattr(module, "features", None)
    return type(module) is nn.Flatten or (x.shape[-1] != features and prod(x.shape[1:]) == features)
