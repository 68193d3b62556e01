"""Setting single values of a recipe by dotted key: what presets and the command line do."""

import copy
from typing import Any

from moebius.kit.errors import RecipeError
from moebius.kit.registry import did_you_mean
from moebius.lab.recipe.problems import Path, Problem, parse_path, path_text
from moebius.lab.recipe.text import read_yaml


def parse_override(text: str) -> tuple[Path, Any] | Problem:
    """Path and value of a `key=value`; the value is read as YAML.

    Example:
        >>> parse_override("variants.hidden.gate.hidden=[128]")
        (('variants', 'hidden', 'gate', 'hidden'), [128])
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        return Problem(("override",), "needs the form key=value", text, "such as training.epochs=2")
    try:
        return parse_path(key.strip()), read_yaml(value, text)
    except RecipeError as error:
        return Problem(parse_path(key.strip()), f"needs a value in YAML ({error.problems[0]})", value)


def assign_value(tree: dict[str, Any], path: Path, value: Any) -> Path | Problem:
    """Set the value at `path` in place, making the mappings on the way.

    Returns:
        The path of the outermost key that this made or changed, or the problem that stands in the way.
    """
    if path[0] == "presets":
        return Problem(path, "a preset's values cannot be overridden", value, "override the key itself")
    what = {"variants": "variant", "stages": "stage"}.get(str(path[0]))
    named = tree.get(str(path[0]))
    if what and isinstance(named, dict) and len(path) > 1 and str(path[1]) not in named:
        return Problem(path[:2], f"no such {what}", value, did_you_mean(str(path[1]), named))
    made: Path | None = None
    node: Any = tree
    place: Any
    for depth, place in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            if not isinstance(place, int) or place >= len(node):
                rule = f"the list {path_text(path[:depth])} has positions 0 to {len(node) - 1}"
                return Problem(path[: depth + 1], rule, place)
        elif isinstance(node, dict):
            # A variant may be called 2.
            place = str(place)
            if place not in node or (node[place] is None and not last):
                made = made or path[: depth + 1]
                node[place] = {}
        else:
            return Problem(path, f"{path_text(path[:depth])} holds a single value and has no keys", node)
        if last:
            node[place] = copy.deepcopy(value)
        else:
            node = node[place]
    return made or path
