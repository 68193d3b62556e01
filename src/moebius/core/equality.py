"""Whether modules are equal but for the values of their parameters, so that one computation serves all of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def describe_difference(experts: Sequence[nn.Module]) -> str | None:
    """In what the modules differ, as the end of a sentence; None where they are equal.

    Example:
        >>> describe_difference([nn.Linear(2, 3), nn.Linear(2, 4)])
        "their parameters' shapes differ"
    """
    first = experts[0]
    if any(type(expert) is not type(first) for expert in experts):
        return "their classes differ"
    shapes = _tensor_shapes(first)
    if any(_tensor_shapes(expert) != shapes for expert in experts):
        return "their parameters' shapes differ"
    formats = _tensor_formats(first)
    if any(_tensor_formats(expert) != formats for expert in experts):
        return "their tensors' formats, devices or kinds differ"
    if any(str(expert) != str(first) or not _has_equal_settings(expert, first) for expert in experts):
        return "their structures differ"
    return None


def has_global_hooks() -> bool:
    """Whether hooks for all modules are registered (`torch.nn.modules.module.register_module_…`)."""
    return any(getattr(torch.nn.modules.module, f"_global{table}") for table in HOOK_TABLES)


def has_hooks(experts: Sequence[nn.Module]) -> bool:
    """Whether one of these modules, or of their parts, has hooks."""
    return any(getattr(part, table, None) for expert in experts for part in expert.modules() for table in HOOK_TABLES)


def _tensor_shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in _distinct_tensors(module)]


def _tensor_formats(module: nn.Module) -> list[tuple[torch.dtype, torch.device, type]]:
    return [(tensor.dtype, tensor.device, type(tensor)) for _, tensor in _distinct_tensors(module)]


def _distinct_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # Each tensor once: a module with two tensors then has one name more than a module with one tensor of two names.
    yield from module.named_parameters()
    yield from module.named_buffers()


def _has_equal_settings(expert: nn.Module, first: nn.Module) -> bool:
    """Whether all attributes that a forward can read, besides parameters and buffers, are equal."""
    if expert is first:
        return True
    pairs = zip(expert.modules(), first.modules(), strict=True)
    return all(equal_values(_settings(expert_part), _settings(first_part)) for expert_part, first_part in pairs)


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name == "training" or not name.startswith("_")}


def equal_values(left: Any, right: Any) -> bool:
    """Whether two attribute values are equal; a tensor equals itself only."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal_values(left[key], right[key]) for key in left)
    return left is right or (type(left) is type(right) and not isinstance(left, Tensor) and bool(left == right))
