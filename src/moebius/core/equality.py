"""Whether modules are equal but for the values of their parameters, so that one computation can stand for all."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def difference(experts: Sequence[nn.Module]) -> str | None:
    """In what the modules differ, as the end of a sentence; None where they are equal.

    Example:
        >>> difference([nn.Linear(2, 3), nn.Linear(2, 4)])
        "their parameters' shapes differ"
    """
    first = experts[0]
    if any(type(expert) is not type(first) for expert in experts):
        return "their classes differ"
    shapes = _shapes(first)
    if any(_shapes(expert) != shapes for expert in experts):
        return "their parameters' shapes differ"
    formats = _formats(first)
    if any(_formats(expert) != formats for expert in experts):
        return "their tensors' formats, devices or kinds differ"
    if any(str(expert) != str(first) or not _equal_settings(expert, first) for expert in experts):
        return "their structures differ"
    return None


def has_global_hooks() -> bool:
    """Whether a hook waits for every module there is to be called (`torch.nn.modules.module.register_module_…`)."""
    return any(getattr(torch.nn.modules.module, f"_global{hooks}") for hooks in HOOKS)


def has_hooks(experts: Sequence[nn.Module]) -> bool:
    """Whether a hook waits for one of these modules, or of their parts, to be called."""
    return any(getattr(part, hooks, None) for expert in experts for part in expert.modules() for hooks in HOOKS)


def _shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in _named(module)]


def _formats(module: nn.Module) -> list[tuple[torch.dtype, torch.device, type]]:
    return [(tensor.dtype, tensor.device, type(tensor)) for _, tensor in _named(module)]


def _named(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # Each once: where another module has two tensors in the place of one with two names, it has a name more.
    yield from module.named_parameters()
    yield from module.named_buffers()


def _equal_settings(expert: nn.Module, first: nn.Module) -> bool:
    """Whether what a forward can read besides parameters and buffers is the same."""
    if expert is first:
        return True
    pairs = zip(expert.modules(), first.modules(), strict=True)
    return all(equal_values(_settings(one), _settings(other)) for one, other in pairs)


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name == "training" or not name.startswith("_")}


def equal_values(one: Any, other: Any) -> bool:
    """Whether two values of attributes are the same; a tensor is so to itself alone."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal_values(one[key], other[key]) for key in one)
    return one is other or (type(one) is type(other) and not isinstance(one, Tensor) and bool(one == other))
