"""What is wrong with a recipe, in plain words: path of the key, rule, value, fix."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moebius.kit.errors import ArgumentError

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the recipe down."""

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
"""The value of a key that the recipe does not have; null is a value of its own."""


@dataclass(frozen=True)
class Problem:
    """A rule that the value of a key breaks.

    Arguments:
        path: of the key.
        rule: a clause that says what must hold ("needs a whole number").
        value: the value of the key, or `ABSENT`.
        fix: what to type instead.
    """

    path: Path
    rule: str
    value: Any = ABSENT
    fix: str | None = None

    def line(self, note: str = "") -> str:
        """The problem as text: `path: rule, got value (note); fix`."""
        got = "" if self.value is ABSENT else f", got {shortened(self.value)}"
        return f"{path_text(self.path)}: {self.rule}{got}{note}" + (f"; {self.fix}" if self.fix else "")

    def at(self, path: Path) -> "Problem":
        """The same problem at another path."""
        return Problem(path, self.rule, self.value, self.fix)

    def with_override(self) -> "Problem":
        """The same problem with a fix `key: value` as an override that a shell takes as it is, brackets in quotes.

        Example:
            >>> Problem(("model", "gate", "hidden"), "needs a width", [], "hidden: [64]").with_override().fix
            "'model.gate.hidden=[64]'"
        """
        key, colon, value = (self.fix or "").partition(": ")
        if not colon or not self.path or key != self.path[-1]:
            return self
        return Problem(self.path, self.rule, self.value, shlex.quote(f"{path_text(self.path)}={value}"))


def from_argument_error(error: ArgumentError, prefix: Path = ()) -> Problem:
    """The problem that a component's constructor reports; a fix in Python becomes one in YAML.

    Example:
        >>> from_argument_error(ArgumentError("hidden", "needs a width", [], "hidden=[64]"), ("gate",)).fix
        'hidden: [64]'
    """
    fix = re.sub(r"^(\w+)=(?!=)", r"\1: ", error.fix) if error.fix else None
    return Problem((*prefix, *parse_path(error.argument)), error.rule, error.value, fix)


def path_text(path: Path) -> str:
    """A path as text.

    Example:
        >>> path_text(("data", "sets", 0, "name"))
        'data.sets[0].name'
    """
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
    return text or "recipe"


def parse_path(text: str) -> Path:
    """The path that a text names; a list position is written `[0]` or `.0`.

    Example:
        >>> parse_path("data.sets[0].name") == parse_path("data.sets.0.name") == ("data", "sets", 0, "name")
        True
    """
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    # More digits than a position has: Python reads no number of more than 4,300.
    return tuple(int(part) if re.fullmatch(r"[0-9]{1,18}", part) else part for part in parts)


def shortened(value: Any, longest: int = 90) -> str:
    """A value as YAML writes it, cut off after `longest` characters."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def unique_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, in order: a problem of what variants share is found for every variant."""
    seen: dict[tuple[Path, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.path, problem.rule), problem)
    return list(seen.values())


def inner_mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`; an empty one where the value is no mapping, which the schema reports."""
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}
