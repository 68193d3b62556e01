"""What modules give that were made for something else: its description, and which part of it is the output."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

# The name of the part that classifiers and language models are called for.
_USUAL = "logits"


def describe_output(output: Any) -> str:
    """The value as a clause.

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
    names = ", ".join(repr(name) for name, _ in _parts(output))
    return f"{type(output).__name__} with {names}" if names else type(output).__name__


def adapter_line(name: str, output: Any, rows: int) -> str:
    """The line that makes one tensor, with so many rows, of what the module that goes by a name gave.

    Example:
        >>> import torch
        >>> adapter_line("expert", {"loss": torch.zeros(()), "y": torch.zeros(2, 3)}, rows=2)
        'mb.experts.Adapter(expert, output="y")'
    """
    if output is None:
        return "a forward that returns its tensor"
    places = [place for place, part in _parts(output) if isinstance(part, Tensor) and part.shape[:1] == (rows,)]
    if not places:
        return f"mb.experts.Adapter({name}, output=function), a function that makes one tensor of what it is given"
    place = _USUAL if _USUAL in places else places[0]
    quoted = f'"{place}"' if isinstance(place, str) else place
    return f"mb.experts.Adapter({name}, output={quoted})"


def _parts(output: Any) -> Iterable[tuple[Any, Any]]:
    """Its parts by what `Adapter(output=…)` calls them."""
    if isinstance(output, Mapping):
        return [(name, part) for name, part in output.items() if isinstance(name, str)]
    if isinstance(output, tuple | list):
        return list(enumerate(output))
    if is_dataclass(output):
        return [(one.name, getattr(output, one.name)) for one in fields(output)]
    return []
