"""The keywords of a component: names, types, defaults and the text of each, read from its signature and docstring."""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from moebius.core.loss_needs import loss_needs
from moebius.core.routing import Router
from moebius.kit.registry import ROOMS, find, kinds
from moebius.lab.checks.wording import describe_type
from moebius.lab.model.resolve import FACTS

# The rooms whose components get facts of the data; a kind of room layers gets its width, `dim`.
MODEL_ROOMS = ("gates", "routers", "experts", "combine")
REQUIRED: Any = inspect.Parameter.empty
"""Stands for the default of a keyword that has none."""


@dataclass(frozen=True)
class Keyword:
    """One keyword of a component.

    Arguments:
        name: of the keyword.
        annotation: its type.
        default: its default, or `REQUIRED`.
        text: what the docstring's section "Arguments:" says of it; "" where it says nothing.
        from_data: whether the data or the number of experts give the value where a recipe gives none.
    """

    name: str
    annotation: Any
    default: Any
    text: str
    from_data: bool

    @property
    def type(self) -> str:
        """The type in words."""
        if self.annotation is Router:
            return "a router"
        if self.takes_gate:
            return "a gate"
        return describe_type(self.annotation) or "any value"

    @property
    def takes_gate(self) -> bool:
        """Whether the value is a gate."""
        return self.name == "gate" and self.annotation is nn.Module

    @property
    def state(self) -> str:
        """The default in words: a value, "required" or "filled in from the data"."""
        if self.from_data:
            return "filled in from the data"
        return "required" if self.default is REQUIRED else f"default {yaml_text(self.default)}"


def list_rooms() -> list[tuple[str, str, str]]:
    """Every room of the registry with what it holds and the names of its kinds."""
    texts = {room: (importlib.import_module(package).__doc__ or "").split("\n")[0] for room, package in ROOMS.items()}
    return [(room, text, ", ".join(kinds(room))) for room, text in texts.items()]


def list_keywords(room: str, kind: str) -> list[Keyword]:
    """The keywords that a recipe may give to a kind, in the order of its signature.

    Example:
        >>> [(keyword.name, keyword.type, keyword.state) for keyword in list_keywords("schedules", "step")][0]
        ('start', 'a number', 'required')
        >>> [keyword.name for keyword in list_keywords("gates", "linear") if keyword.from_data]
        ['features', 'experts']
    """
    facts = FACTS if room in MODEL_ROOMS else ("dim",) if room == "layers" else ()
    component = find(room, kind)
    return read_keywords(component, caller_arguments(component), facts)


def keyword_cells(room: str, kind: str) -> list[tuple[str, str, str, str]]:
    """The rows of a table of a kind's keywords: name, type, default and text; one row for a kind that takes none."""
    keywords = [(keyword.name, keyword.type, keyword.state, keyword.text) for keyword in list_keywords(room, kind)]
    return keywords or [("", "", "", "takes no keywords")]


def read_keywords(
    component: Callable[..., Any], excluded: Collection[str] = (), facts: Collection[str] = ()
) -> list[Keyword]:
    """The keywords of any class or function.

    Arguments:
        component: the class or function.
        excluded: names of parameters that no recipe gives.
        facts: names of parameters that are filled in from the data.
    """
    texts, annotations = parse_arguments(component.__doc__), read_annotations(component)
    return [
        Keyword(
            name,
            annotations.get(name, Any),
            parameter.default,
            texts.get(name, ""),
            name in facts,
        )
        for name, parameter in inspect.signature(component).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in excluded
    ]


def caller_arguments(component: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters that no recipe gives: those of a call, such as a loss's routing and expert losses."""
    if not inspect.isfunction(component):
        return ()
    first = tuple(inspect.signature(component).parameters)[:1]
    return (*first, "expert_losses") if loss_needs(component).expert_losses else first


def read_annotations(component: Callable[..., Any]) -> dict[str, Any]:
    """The types of a component's parameters by name; nothing where they cannot be resolved."""
    target = component.__init__ if inspect.isclass(component) else component
    try:
        return typing.get_type_hints(target, include_extras=True)
    except (NameError, TypeError):
        return {}


def parse_arguments(docstring: str | None) -> dict[str, str]:
    """The section "Arguments:" of a docstring: name → text in one line. `a, b: text` describes both.

    Example:
        >>> parse_arguments("A sum.\\n\\nArguments:\\n    a, b: numbers,\\n        above 0.\\n\\nReference: ours.")
        {'a': 'numbers, above 0.', 'b': 'numbers, above 0.'}
    """
    _, _, section = inspect.cleandoc(docstring or "").partition("Arguments:\n")
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.split("\n\n", 1)[0].splitlines():
        if not line.startswith("    "):
            break
        entry = re.match(r"    (\w+(?:, \w+)*): *(.*)", line)
        if entry:
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2])
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def yaml_text(value: Any) -> str:
    """A default as a recipe writes it.

    Example:
        >>> yaml_text((64, 64)), yaml_text(None), yaml_text(True), yaml_text("relu")
        ('[64, 64]', 'null', 'true', 'relu')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {yaml_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return value or '""'
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if float(short) == value else repr(value)
