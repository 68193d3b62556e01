"""Reads and writes YAML 1.2: plain values only, no duplicate keys, bounded in size."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import SafeRepresenter

from moebius.kit.errors import RecipeError

LONGEST_TEXT = 200_000
"""Characters of a YAML text, which take up to ten seconds to read."""
MOST_VALUES = 100_000
"""Keys and values of a YAML text, each as often as aliases repeat it."""
DEEPEST = 64
"""Levels of lists and mappings inside each other."""
LARGEST = 2**63
"""Whole numbers are smaller in size."""
# Errors of numbers and other scalars that have a tag and are none.
_BAD_SCALARS = (ValueError, KeyError, IndexError, TypeError, OverflowError)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class _Constructor(SafeConstructor):
    """Plain values, and no code that runs."""


class _Composer(Composer):
    """Stops at a text that is nested too deeply, or that aliases make too large, before any value is made of it."""

    depth = 0

    def __init__(self, loader: Any = None):
        super().__init__(loader=loader)
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        mark = self.parser.peek_event().start_mark
        if self.depth > DEEPEST:
            raise ComposerError(None, None, f"needs at most {DEEPEST} levels inside each other", mark)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if id(node) not in self.sizes:
            parts = node.value if isinstance(node.value, list) else []
            parts = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
            # An alias of what it is part of has no size yet.
            self.sizes[id(node)] = 1 + sum(self.sizes.get(id(each), 1) for each in parts)
        if self.sizes[id(node)] > MOST_VALUES:
            raise ComposerError(None, None, f"needs at most {MOST_VALUES:,} values, aliases counted in full", mark)
        return node


class _Representer(SafeRepresenter):
    """Quotes around texts that a mapping in one line would take for keys."""

    def represent_str(self, data: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if data.startswith(("?", ":")) else None)


# A date is text, as in the core schema of YAML 1.2.
_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
_Representer.add_representer(str, _Representer.represent_str)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer, yaml.Constructor, yaml.Representer = _Composer, _Constructor, _Representer
    yaml.default_flow_style, yaml.width = None, 110
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    return yaml


def read_yaml(text: str, source: str) -> Any:
    """The plain value of a YAML text: mappings with text keys, lists, numbers, texts, true, false and null.

    Arguments:
        text: one YAML document.
        source: the name of the text in errors.

    Raises:
        RecipeError: the text is no YAML, or too large; a key occurs twice or is no text; a number is not finite or
            needs more than 64 bits; or a text has control characters.

    Example:
        >>> read_yaml("{lr: 1e-3, rows: 60_000, name: no}", "example")
        {'lr': 0.001, 'rows': 60000, 'name': 'no'}
    """
    if len(text) > LONGEST_TEXT:
        raise RecipeError(source, [f"needs at most {LONGEST_TEXT:,} characters, got {len(text):,}"])
    try:
        value = _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(source, [f"{where}no valid YAML: {reason}"]) from None
    except _BAD_SCALARS as error:
        raise RecipeError(source, [f"no valid YAML: a value is not what it is marked as ({error})"]) from None
    return copy_plain(value, source)


def write_yaml(value: Any) -> str:
    """YAML text of a plain value, which `read_yaml` reads back: short lists and mappings in one line.

    Example:
        >>> write_yaml({"gate": {"kind": "linear"}, "rows": [1, 2]}).splitlines()
        ['gate: {kind: linear}', 'rows: [1, 2]']
    """
    stream = io.StringIO()
    _yaml().dump(value, stream)
    # The writer leaves a space where it folds a text.
    return re.sub(r" +$", "", stream.getvalue(), flags=re.MULTILINE)


def copy_plain(value: Any, source: str) -> Any:
    """A copy with lists in place of tuples, in which aliases share nothing: an override of one leaves the others.

    Raises:
        RecipeError: something in `value` is no plain value; the error names it and `source`.
    """
    problems: list[str] = []
    count = 0

    def copy(value: Any, path: str, parents: tuple[int, ...]) -> Any:
        nonlocal count
        count += 1
        if count > MOST_VALUES or len(parents) > DEEPEST:
            rule = f"needs at most {MOST_VALUES:,} values, {DEEPEST} levels inside each other"
            raise RecipeError(source, [f"{path.split('.', 1)[0] or 'top'}: {rule}"])
        if id(value) in parents:
            problems.append(f"{path}: an alias may not contain itself")
            return None
        inner = (*parents, id(value))
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    problems.append(f"{path or 'top'}: keys need to be text, got {key!r}; put it in quotes")
                elif _CONTROL.search(key):
                    problems.append(f"{path or 'top'}: keys need to be without control characters, got {key!r}")
            return {key: copy(item, f"{path}.{key}".lstrip("."), inner) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, f"{path}[{index}]", inner) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{path}: needs a finite number, got {value}")
        elif isinstance(value, int) and abs(value) >= LARGEST:
            problems.append(f"{path}: needs a number of at most 64 bits, got one of {value.bit_length()}")
        elif isinstance(value, str) and _CONTROL.search(value):
            problems.append(f"{path}: needs a text without control characters, got {value[:60]!r}")
        elif value is not None and not isinstance(value, bool | int | float | str):
            problems.append(f"{path}: needs a plain value, got {value!r}")
        return value

    plain = copy(value, "", ())
    if problems:
        raise RecipeError(source, problems)
    return plain
