"""Describing the outputs of modules that return no single tensor, and adapting such modules."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

# The entry that holds the output of classifiers and language models.
_USUAL_ENTRY = "logits"


def describe_output(output: Any) -> str:
    """Describe a module's output as a clause.

    Example:
        >>> import torch
        >>> describe_output((torch.zeros(2, 3), None))
        'a tuple of a tensor of shape (2, 3), None'
    """
    if output is None:
        return "None"
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(map(describe_output, output))}"
    names = ", ".join(repr(name) for name, _ in _entries(output))
    return f"{type(output).__name__} with {names}" if names else type(output).__name__


def adapter_line(name: str, output: Any, rows: int) -> str:
    """The line of code that adapts a module so that it returns one tensor with an entry for each row.

    Arguments:
        name: the module's name in that line.
        output: what the module returned.
        rows: how many rows it was called with.

    Example:
        >>> import torch
        >>> adapter_line("expert", {"loss": torch.zeros(()), "y": torch.zeros(2, 3)}, rows=2)
        'mb.experts.Adapter(expert, output="y")'
    """
    if output is None:
        return "a forward that returns its tensor"
    keys = [key for key, value in _entries(output) if isinstance(value, Tensor) and value.shape[:1] == (rows,)]
    if not keys:
        return f"mb.experts.Adapter({name}, output=function), a function that makes one tensor of what it is given"
    key = _USUAL_ENTRY if _USUAL_ENTRY in keys else keys[0]
    quoted_key = f'"{key}"' if isinstance(key, str) else key
    return f"mb.experts.Adapter({name}, output={quoted_key})"


def _entries(output: Any) -> Iterable[tuple[Any, Any]]:
    """The entries of a mapping, a sequence or a dataclass, with the keys that `Adapter(output=…)` takes."""
    if isinstance(output, Mapping):
        return [(key, value) for key, value in output.items() if isinstance(key, str)]
    if isinstance(output, tuple | list):
        return list(enumerate(output))
    if is_dataclass(output):
        return [(item.name, getattr(output, item.name)) for item in fields(output)]
    return []
