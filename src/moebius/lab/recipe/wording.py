"""Types and pydantic's findings in plain words."""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ValidationError

from moebius.kit.registry import did_you_mean
from moebius.lab.recipe.problems import ABSENT, Path, Problem

_ONE = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
_MANY = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false values"}


def describe_type(annotation: Any) -> str | None:
    """What a value of this type looks like in YAML, or None for types that YAML cannot write.

    Example:
        >>> describe_type(list[int] | None)
        'a list of whole numbers or null'
    """
    if annotation in _ONE:
        return _ONE[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in map(describe_type, arguments) if part]
        # Every whole number is a number.
        parts = [part for part in parts if not (part == _ONE[int] and _ONE[float] in parts)]
        return " or ".join(parts) or None
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    kind = origin or annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, PurePath):
        return "a path"
    if issubclass(kind, Sequence):
        items = [argument for argument in arguments if argument is not Ellipsis]
        if kind is tuple and len(items) > 1 and Ellipsis not in arguments:
            return f"a list of {len(items)} values"
        many = _MANY.get(items[0]) if items else None
        return f"a list of {many}" if many else "a list"
    return "a mapping" if issubclass(kind, Mapping) else None


def problems_of(error: ValidationError, model: type[BaseModel], prefix: Path = ()) -> list[Problem]:
    """What pydantic found wrong with a value for `model`, in plain words.

    Arguments:
        error: pydantic's findings.
        model: the model that the value was for: its fields are the known keys.
        prefix: where the value stands in the recipe.
    """
    return [_problem(finding, model, prefix) for finding in error.errors(include_url=False)]


def _problem(finding: Any, model: type[BaseModel], prefix: Path) -> Problem:
    kind, value, context = finding["type"], finding["input"], finding.get("ctx", {})
    path = (*prefix, *finding["loc"])
    if kind == "extra_forbidden":
        return Problem(path, "no such key", value, did_you_mean(str(path[-1]), _keys(model, finding["loc"][:-1])))
    if kind == "missing":
        return Problem(path, "is missing", ABSENT)
    if kind == "value_error":
        return Problem(path, str(context["error"]), value)
    return Problem(path, _rule(kind, context) or finding["msg"].lower(), value)


def _rule(kind: str, context: Mapping[str, Any]) -> str | None:
    simple = {
        "int": "needs a whole number",
        "float": "needs a number",
        "finite": "needs a finite number",
        "string": "needs text",
        "bool": "needs true or false",
        "list": "needs a list",
        "dict": "needs a mapping of keys to values",
        "model": "needs a mapping of keys to values",
    }
    match kind:
        case "greater_than":
            return f"needs a number above {context['gt']:g}"
        case "greater_than_equal":
            return f"needs a number of at least {context['ge']:g}"
        case "less_than":
            return f"needs a number below {context['lt']:g}"
        case "too_short":
            entries = "entry" if context["min_length"] == 1 else "entries"
            return f"needs at least {context['min_length']} {entries}"
        case "literal_error":
            return f"needs one of {context['expected'].replace(chr(39), '').replace(' or ', ', ')}"
    return simple.get(kind.split("_")[0])


def _keys(model: type[BaseModel], location: Path) -> list[str]:
    """The keys that a mapping at `location` inside a value for `model` may have."""
    inner: type[BaseModel] | None = model
    for key in location:
        field = inner.model_fields.get(str(key)) if inner is not None else None
        # A list's or a mapping's own positions and names lead to the same model.
        inner = _model_in(field.annotation) if field is not None else inner
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)
