"""Tensors of rows, alone or in tuples and mappings: inputs of several parts, targets of several tasks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def map_nested(values: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same tuples and mappings with `function(tensor)` for each tensor.

    Example:
        >>> import torch
        >>> map_nested({"a": torch.ones(2), "b": (torch.zeros(2),)}, lambda tensor: tensor.sum().item())
        {'a': 2.0, 'b': (0.0,)}
    """
    if isinstance(values, Tensor):
        return function(values)
    if isinstance(values, Mapping):
        return {name: map_nested(value, function) for name, value in values.items()}
    return tuple(map_nested(value, function) for value in values)


def tensors_of(values: Any) -> Iterator[Tensor]:
    """The tensors, in order."""
    if isinstance(values, Tensor):
        yield values
    else:
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from tensors_of(value)
