"""Describes types, and the errors of pydantic, in plain words."""

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import ABSENT, Path, Problem

Model = TypeVar("Model", bound=BaseModel)
_SINGULAR = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
_PLURAL = {int: "whole numbers", float: "numbers", str: "texts", bool: "true or false values"}


def describe_type(annotation: Any) -> str | None:
    """A value of this type in YAML, in words; None for types that YAML cannot write.

    Example:
        >>> describe_type(list[int] | None)
        'a list of whole numbers or null'
    """
    if annotation in _SINGULAR:
        return _SINGULAR[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in map(describe_type, arguments) if part]
        # "A number" covers whole numbers.
        parts = [part for part in parts if not (part == _SINGULAR[int] and _SINGULAR[float] in parts)]
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
        plural = _PLURAL.get(items[0]) if items else None
        return f"a list of {plural}" if plural else "a list"
    return "a mapping" if issubclass(kind, Mapping) else None


def problems_of(error: ValidationError, model: type[BaseModel], prefix: Path = ()) -> list[Problem]:
    """The problems of a value that pydantic does not accept for `model`.

    Arguments:
        error: of pydantic.
        model: the model of the value; its fields are the keys that the value may have.
        prefix: path of the value in the recipe.
    """
    return [_describe_error(details, model, prefix) for details in error.errors(include_url=False)]


def validate(model: type[Model], value: Any, path: Path = ()) -> tuple[Model | None, list[Problem]]:
    """The value as the model has it, None where it has problems; and the problems, with paths below `path`."""
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, problems_of(error, model, path)


def raise_problems(problems: Iterable[Problem]) -> None:
    """Report problems from a validator of pydantic, where there are any; `problems_of` gives them back.

    Raises:
        ValidationError: with an error at the path of each problem, below the place of the validator.
    """
    lines: list[InitErrorDetails] = []
    for problem in problems:
        template = "{rule}; {fix}" if problem.fix else "{rule}"
        error = PydanticCustomError("problem", template, {"rule": problem.rule, "fix": problem.fix})
        lines.append({"type": error, "loc": problem.path, "input": problem.value})
    if lines:
        raise ValidationError.from_exception_data("value", lines)


def _describe_error(details: Any, model: type[BaseModel], prefix: Path) -> Problem:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    path = (*prefix, *details["loc"])
    if kind == "extra_forbidden":
        return Problem(path, "no such key", value, did_you_mean(str(path[-1]), _list_keys(model, details["loc"][:-1])))
    if kind == "missing":
        return Problem(path, "is missing", ABSENT)
    if kind == "problem":
        return Problem(path, context["rule"], value, context["fix"])
    if kind == "value_error":
        return Problem(path, str(context["error"]), value)
    return Problem(path, _describe_rule(kind, context) or details["msg"].lower(), value)


def _describe_rule(kind: str, context: Mapping[str, Any]) -> str | None:
    type_rules = {
        "int": "needs a whole number",
        "float": "needs a number",
        "finite": "needs a finite number",
        "string": "needs text",
        "bool": "needs true or false",
        "list": "needs a list",
        "tuple": "needs a list",
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
    return type_rules.get(kind.split("_")[0])


def _list_keys(model: type[BaseModel], location: Path) -> list[str]:
    """The keys that the mapping at `location` in a value of `model` may have."""
    inner: type[BaseModel] | None = model
    for key in location:
        field = inner.model_fields.get(str(key)) if inner is not None else None
        # Positions of lists and names of mappings are no fields: the model stays the same.
        inner = _model_in(field.annotation) if field is not None else inner
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in typing.get_args(annotation) if (model := _model_in(part))), None)
