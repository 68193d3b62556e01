"""Checks `{kind: …, keyword: value}` against the constructor that the kind names, whatever the component.

Rules about values live in the constructors; here are only names and types, read from their signatures.
"""

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from moebius.core.routing import Router
from moebius.kit.errors import ArgumentError, UnknownKindError
from moebius.kit.registry import did_you_mean, find, kinds
from moebius.lab.model.build import FACTS
from moebius.lab.recipe.keywords import caller_arguments, read_annotations
from moebius.lab.recipe.problems import ABSENT, Path, Problem, from_argument_error
from moebius.lab.recipe.wording import describe_type


def check_component(
    room: str,
    value: Any,
    path: Path,
    besides: tuple[str, ...] = (),
    construct: bool = False,
) -> list[Problem]:
    """What is wrong with a component of `room` as the recipe has it at `path`.

    Arguments:
        room: a room of the registry.
        value: the mapping with `kind` and keywords; anything else is a problem.
        path: where it stands.
        besides: keys that are not the constructor's (`count` of experts, `weight` of losses).
        construct: also call the constructor, for components that need no facts of the data.
    """
    known = kinds(room)
    if not isinstance(value, Mapping):
        return [Problem(path, "needs a mapping with a kind", value, f"such as {{kind: {_example(value, known)}}}")]
    if "kind" not in value:
        return [Problem((*path, "kind"), "is missing", ABSENT, f"one of {', '.join(known)}")]
    try:
        component = find(room, str(value["kind"]))
    except UnknownKindError:
        return [Problem((*path, "kind"), "no such kind", value["kind"], suggest_kind(room, value["kind"]))]
    keywords = {name: given for name, given in value.items() if name != "kind" and name not in besides}
    problems = check_keywords(component, keywords, path, caller_arguments(component), besides, str(value["kind"]))
    if construct and not problems:
        try:
            component(**keywords)
        except ArgumentError as error:
            problems.append(from_argument_error(error, path))
    return problems


def suggest_kind(room: str, kind: Any) -> str:
    """The fix for a kind that a room does not have: the closest kinds, or all of them and how to add one."""
    known = kinds(room)
    fix = did_you_mean(str(kind), known)
    all_kinds = did_you_mean("", known)
    return f"{fix}, or --plugin FILE where a file of yours registers it" if fix == all_kinds else fix


def check_keywords(
    component: Callable[..., Any],
    keywords: Mapping[str, Any],
    path: Path,
    excluded: Collection[str] = (),
    besides: tuple[str, ...] = (),
    called: str | None = None,
) -> list[Problem]:
    """What is wrong with keywords for a class or function, by its signature.

    Arguments:
        component: the class or function.
        keywords: what the recipe gives.
        path: where.
        excluded: names of parameters that no recipe gives (a loss's routing).
        besides: keys that may stand beside the keywords; a typo may have meant one.
        called: the kind's name; the component's own unless given.
    """
    parameters = {
        name: parameter for name, parameter in inspect.signature(component).parameters.items() if name not in excluded
    }
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    annotations = read_annotations(component)
    called = called or component.__name__
    problems = []
    for name, value in keywords.items():
        if name in named and annotations.get(name) is Router:
            problems += check_component("routers", value, (*path, name))
        elif name in named:
            rule = _type_rule(annotations.get(name, Any), value)
            if rule is not None:
                problems.append(Problem((*path, name), rule, value))
        elif not takes_any:
            known = (*named, *besides)
            fix = did_you_mean(name, known) if known else "it takes none"
            problems.append(Problem((*path, name), f"{called} has no such keyword", value, fix))
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in keywords and name not in FACTS:
            problems.append(Problem((*path, name), f"is missing, {called} needs it"))
    return problems


def check_amount(value: Any, path: Path, least: float | int | None = None) -> list[Problem]:
    """What is wrong with a number that may follow a schedule over the epochs.

    Arguments:
        value: a number or a component of room `schedules`.
        path: where.
        least: the smallest number allowed.
    """
    if isinstance(value, Mapping):
        return check_component("schedules", value, path, construct=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        fix = "such as {kind: cosine, start: 1e-3, end: 0, epochs: 20}"
        return [Problem(path, "needs a number or a schedule", value, fix)]
    if least is not None and value < least:
        return [Problem(path, f"needs a number of at least {least:g}", value)]
    return []


def _type_rule(annotation: Any, value: Any) -> str | None:
    """The rule that `value` breaks if it is not of this type; None when it is, or when YAML cannot write the type."""
    rule = describe_type(annotation)
    if rule is None:
        return None
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    try:
        # Through JSON: strict there means that "64" is no number, yet a list will do for a tuple or a sequence.
        TypeAdapter(annotation, config=config).validate_json(json.dumps(value))
    except ValidationError:
        return f"needs {rule}"
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None
    return None


def _example(value: Any, known: tuple[str, ...]) -> str:
    return value if value in known else known[0]
