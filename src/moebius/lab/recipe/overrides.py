"""Sets single values of a recipe by dotted key, for presets and for the command line."""

import copy
from typing import Any

from moebius.kit.errors import RecipeError
from moebius.kit.registry import did_you_mean
from moebius.lab.checks.problems import Path, Problem, parse_path, path_text
from moebius.lab.yaml_text import DEEPEST, read_yaml


def parse_override(text: str) -> tuple[Path, Any] | Problem:
    """Path and value of a text `key=value`, whose value is YAML; or the problem of the text.

    Example:
        >>> parse_override("variants.hidden.gate.hidden=[128]")
        (('variants', 'hidden', 'gate', 'hidden'), [128])
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        return Problem(("override",), "needs the form key=value", text, "such as training.epochs=2")
    try:
        return parse_key(key.strip()), read_yaml(value, text)
    except RecipeError as error:
        return Problem(parse_key(key.strip()), f"needs a value in YAML ({error.problems[0].removeprefix(': ')})", value)


def parse_key(text: str) -> Path:
    """The path of a dotted key; what follows `sweep.keys` is a dotted key as a whole.

    Example:
        >>> parse_key("sweep.keys.training.gate.lr")
        ('sweep', 'keys', 'training.gate.lr')
    """
    path = parse_path(text)
    return path if path[:2] != ("sweep", "keys") or len(path) < 3 else (*path[:2], path_text(path[2:]))


def assign_value(tree: dict[str, Any], path: Path, value: Any) -> Path | Problem:
    """Set the value at `path` in place, and add the mappings that lead there.

    Returns:
        The path of the outermost key that is added or changed; or the problem for which nothing is set.
    """
    if len(path) > DEEPEST:
        return Problem(path[:1], f"needs a key of at most {DEEPEST} parts", len(path))
    if path[0] == "presets":
        return Problem(path, "a preset's values cannot be overridden", value, "override the key itself")
    part = {"variants": "variant", "stages": "stage"}.get(str(path[0]))
    names = tree.get(str(path[0]))
    if part and isinstance(names, dict) and len(path) > 1 and str(path[1]) not in names:
        return Problem(path[:2], f"no such {part}", value, did_you_mean(str(path[1]), names))
    added: Path | None = None
    node: Any = tree
    key: Any
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            if not isinstance(key, int) or key >= len(node):
                rule = f"the list {path_text(path[:depth])} has positions 0 to {len(node) - 1}"
                return Problem(path[: depth + 1], rule, key)
        elif isinstance(node, dict):
            # A name may consist of digits.
            key = str(key)
            if key not in node or (node[key] is None and not last):
                added = added or path[: depth + 1]
                node[key] = {}
        else:
            return Problem(path, f"{path_text(path[:depth])} holds a single value and has no keys", node)
        if last:
            node[key] = copy.deepcopy(value)
        else:
            node = node[key]
    return added or path
