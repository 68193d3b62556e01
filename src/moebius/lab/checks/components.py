"""Checks `{kind: …, keyword: value}` against the signature of the component that the kind names.

These checks know names and types of keywords; the constructors know the rules about their values.
"""

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from torch import nn

from moebius.core.routing import Router
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.checks.keywords import caller_arguments, read_annotations
from moebius.lab.checks.problems import ABSENT, Path, Problem, from_argument_error
from moebius.lab.checks.wording import describe_type
from moebius.lab.model.resolve import FACTS


def check_component(
    room: str,
    value: Any,
    path: Path,
    besides: tuple[str, ...] = (),
    construct: bool = False,
) -> list[Problem]:
    """The problems of a component of `room` in a recipe.

    Arguments:
        room: a room of the registry.
        value: the mapping with `kind` and keywords; any other value is a problem.
        path: of the component in the recipe.
        besides: keys that are no keywords of the component (`count` of experts, `weight` of losses).
        construct: whether to call the constructor, for components that need no facts of the data.
    """
    room_kinds = kinds(room)
    if not isinstance(value, Mapping):
        example = value if value in room_kinds else room_kinds[0]
        return [Problem(path, "needs a mapping with a kind", value, f"such as {{kind: {example}}}")]
    if "kind" not in value:
        return [Problem((*path, "kind"), "is missing", ABSENT, f"one of {', '.join(room_kinds)}")]
    try:
        component = find(room, str(value["kind"]))
    except UnknownKindError:
        return [Problem((*path, "kind"), "no such kind", value["kind"], suggest_kind(room, value["kind"]))]
    keywords = {name: item for name, item in value.items() if name != "kind" and name not in besides}
    problems = check_keywords(component, keywords, path, caller_arguments(component), besides, str(value["kind"]))
    if construct and not problems:
        try:
            component(**keywords)
        except ArgumentError as error:
            problems.append(from_argument_error(error, path))
    return problems


def suggest_kind(room: str, kind: Any) -> str:
    """The fix for a kind that a room does not have: the closest kinds, or all of them and how to add one."""
    fix = did_you_mean(str(kind), kinds(room))
    # Without a close kind the fix lists all of them.
    lists_all = fix == did_you_mean("", kinds(room))
    return f"{fix}, or --plugin FILE where a file of yours registers it" if lists_all else fix


def check_keywords(
    component: Callable[..., Any],
    keywords: Mapping[str, Any],
    path: Path,
    excluded: Collection[str] = (),
    besides: tuple[str, ...] = (),
    called: str | None = None,
) -> list[Problem]:
    """The problems of keywords for a class or function, by its signature.

    Arguments:
        component: the class or function.
        keywords: the keywords and values of the recipe.
        path: of the component in the recipe.
        excluded: names of parameters that no recipe gives (a loss's routing).
        besides: further keys of the mapping, which a misspelt keyword may stand for.
        called: name of the component in messages; the component's `__name__` unless given.
    """
    # A module without a constructor of its own has that of torch, whose signature says that it takes everything.
    is_bare = inspect.isclass(component) and component.__init__ in (nn.Module.__init__, object.__init__)
    signature = {} if is_bare else inspect.signature(component).parameters
    parameters = {name: parameter for name, parameter in signature.items() if name not in excluded}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    annotations = read_annotations(component)
    called = called or component.__name__
    problems = []
    for name, value in keywords.items():
        if name in accepted and annotations.get(name) is Router:
            problems += check_component("routers", value, (*path, name))
        elif name in accepted:
            rule = _type_rule(annotations.get(name, Any), value)
            if rule is not None:
                problems.append(Problem((*path, name), rule, value))
        elif not takes_any:
            names = (*accepted, *besides)
            fix = did_you_mean(name, names) if names else "it takes none"
            problems.append(Problem((*path, name), f"{called} has no such keyword", value, fix))
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and name not in keywords and name not in FACTS:
            problems.append(Problem((*path, name), f"is missing, {called} needs it"))
    return problems


def check_amount(value: Any, path: Path, least: float | int | None = None) -> list[Problem]:
    """The problems of a number that may follow a schedule over the epochs.

    Arguments:
        value: a number or a component of room `schedules`.
        path: of the value in the recipe.
        least: the smallest allowed number; None for any.
    """
    if isinstance(value, Mapping):
        return check_component("schedules", value, path, construct=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        fix = "such as {kind: cosine, start: 1e-3, end: 0, epochs: 20}"
        return [Problem(path, "needs a number or a schedule", value, fix)]
    if not math.isfinite(value):
        return [Problem(path, "needs a finite number", value)]
    if least is not None and value < least:
        return [Problem(path, f"needs a number of at least {least:g}", value)]
    return []


def _type_rule(annotation: Any, value: Any) -> str | None:
    """The rule that `value` breaks by its type; None for a valid value, and for types that YAML cannot write."""
    rule = describe_type(annotation)
    if rule is None:
        return None
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        # Strict validation of JSON accepts a list for a tuple or a sequence, and refuses "64" for a number.
        TypeAdapter(annotation, config=config).validate_json(json.dumps(value))
    except ValidationError:
        return f"needs {rule}"
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None
    return None
