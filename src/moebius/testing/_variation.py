"""Values of arguments that differ from their defaults, so that a check notices one that is forgotten."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from moebius.core.routing import Router
from moebius.kit.errors import MoebiusError
from moebius.routers.top_k import TopK
from moebius.testing._subject import Subject, members

# No component has an option of this name: its error lists those that there are.
_UNKNOWN = "unknown"


def vary_arguments(subject: Subject) -> dict[str, Any]:
    """All arguments of a component, with as many as possible that differ from their defaults.

    For each argument with a default the first value of its type is taken that the constructor accepts beside those
    before it: the other truth value, a larger whole number, another number, another name of those that the error for
    an unknown name lists. Arguments of other types keep their defaults.

    Example:
        >>> from moebius.testing._subject import Subject
        >>> vary_arguments(Subject.of_kind("routers", "top_k"))["renormalise"]
        False
    """
    with torch.random.fork_rng(devices=()):
        chosen = subject.all_arguments()
        for name, parameter in subject.parameters.items():
            if name in chosen or parameter.default is parameter.empty:
                continue
            for value in _candidates(subject, name, parameter):
                if _accepts(subject, {**chosen, name: value}):
                    chosen[name] = value
                    break
        return chosen


def _accepts(subject: Subject, arguments: dict[str, Any]) -> bool:
    try:
        subject.component(**arguments)
    except Exception:  # any: a value that does not fit may fail anywhere in a constructor
        return False
    return True


def _candidates(subject: Subject, name: str, parameter: inspect.Parameter) -> Iterator[Any]:
    default, annotation = parameter.default, subject.annotations.get(name)
    if isinstance(default, bool):
        yield not default
    elif isinstance(default, int):
        yield from (default + 1, 2 * default, 0.5)
    elif isinstance(default, float):
        yield from (value for value in (0.5, 0.25, 2 * default, default + 1) if value != default)
    elif isinstance(default, str):
        yield from (value for value in _names(subject, name) if value != default)
    elif isinstance(default, Sequence):
        yield _larger(default) if default else (3,)
    elif default is None:
        yield from _values_of_type(members(annotation) - {type(None)})


def _names(subject: Subject, name: str) -> list[str]:
    """The names that the error for an unknown one lists."""
    try:
        subject.component(**subject.all_arguments(**{name: _UNKNOWN}))
    except MoebiusError as error:
        listed = re.search(r"one of ([\w, ]+)", str(error))
        return [] if listed is None else [part.strip() for part in listed.group(1).split(",") if part.strip() != "got"]
    return []


def _larger(values: Any) -> Any:
    """Whole numbers plus 1, others halved; the same nesting."""
    if isinstance(values, Sequence):
        return tuple(_larger(value) for value in values)
    return values + 1 if isinstance(values, int) else values / 2


def _values_of_type(types: set[Any]) -> Iterator[Any]:
    if types == {int}:
        yield from (2, 5)
    elif types and types <= {int, float}:
        yield from (-torch.inf, 0.5, 4.0)
    elif types == {Sequence[int]}:
        yield [1, 3]
    elif Router in types:
        yield TopK(2)
