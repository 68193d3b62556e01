"""Arguments from a file beside the types that a component names for them."""

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moebius.kit.errors import ArgumentError


def call_checked(component: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call a component; arguments of one of moebius are compared with its annotations first.

    Raises:
        ArgumentError: one is of another type.

    Example:
        >>> from moebius.gates import Linear
        >>> call_checked(Linear, {"features": "four", "experts": 2})
        Traceback (most recent call last):
        moebius.kit.errors.ArgumentError: features: needs int, got 'four'
          fix: the file as it was written
    """
    is_checked = component.__module__.startswith("moebius.")
    for name, annotation in _annotations(component).items() if is_checked else ():
        if name in arguments and not _fits(arguments[name], annotation):
            text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
            value = arguments[name]
            plain = value if isinstance(value, bool | int | float | str | list | None) else type(value).__name__
            raise ArgumentError(name, f"needs {text}", plain, "the file as it was written")
    return component(**arguments)


@functools.cache
def _annotations(component: Callable[..., Any]) -> dict[str, Any]:
    target = component.__init__ if inspect.isclass(component) else component
    try:
        return {name: hint for name, hint in typing.get_type_hints(target).items() if name != "return"}
    except (NameError, TypeError):
        return {}


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type; a type that this function does not know fits everything."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is collections.abc.Callable:
        return callable(value)
    if annotation is float:
        return isinstance(value, int | float)
    if annotation is typing.Any or not isinstance(origin or annotation, type):
        return True
    if not isinstance(value, origin or annotation):
        return False
    if isinstance(value, str) and issubclass(origin or annotation, Sequence):
        return annotation is str
    if isinstance(value, list | tuple) and inner and origin is not tuple:
        return all(_fits(each, inner[0]) for each in value)
    if isinstance(value, tuple) and inner[-1:] == (...,):
        return all(_fits(each, inner[0]) for each in value)
    return True
