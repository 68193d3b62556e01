"""What is wrong with a recipe, in plain words: path of the key, rule, value, fix."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moebius.kit.errors import ArgumentError

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the recipe down."""

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
"""Stands for a value that was not given, where null is a value."""


@dataclass(frozen=True)
class Problem:
    """One rule that one key breaks.

    Arguments:
        path: where.
        rule: what must hold, as a clause ("needs a whole number").
        value: what was given, or `ABSENT`.
        fix: what to type instead.
    """

    path: Path
    rule: str
    value: Any = ABSENT
    fix: str | None = None

    def line(self, note: str = "") -> str:
        """`path: rule, got value (note); fix`."""
        got = "" if self.value is ABSENT else f", got {shortened(self.value)}"
        return f"{path_text(self.path)}: {self.rule}{got}{note}" + (f"; {self.fix}" if self.fix else "")

    def at(self, path: Path) -> "Problem":
        """The same problem at another path."""
        return Problem(path, self.rule, self.value, self.fix)


def from_argument_error(error: ArgumentError, prefix: Path = ()) -> Problem:
    """The problem that a component's constructor found."""
    return Problem((*prefix, *parse_path(error.argument)), error.rule, error.value, error.fix)


def path_text(path: Path) -> str:
    """A path as text.

    Example:
        >>> path_text(("data", "sets", 0, "name"))
        'data.sets[0].name'
    """
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")
    return text or "recipe"


def parse_path(text: str) -> Path:
    """The path that a text names; list positions as `[0]` or as `.0`.

    Example:
        >>> parse_path("data.sets[0].name") == parse_path("data.sets.0.name") == ("data", "sets", 0, "name")
        True
    """
    parts = re.sub(r"\[(\d+)\]", r".\1", text).split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


def shortened(value: Any, longest: int = 90) -> str:
    """A value as the recipe's author wrote it, shortened."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    else:
        text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def unique_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Each problem once, in order: variants share what is wrong with what they share."""
    seen: dict[tuple[Path, str], Problem] = {}
    for problem in problems:
        seen.setdefault((problem.path, problem.rule), problem)
    return list(seen.values())


def mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under `key`, empty when there is none: the schema reports that."""
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}
