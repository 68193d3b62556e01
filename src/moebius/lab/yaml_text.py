"""Reads and writes YAML 1.2: plain values only, no duplicate keys."""

import io
import math
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import SafeRepresenter

from moebius.kit.errors import RecipeError


class _Constructor(SafeConstructor):
    """Plain values, and no code that runs."""


class _Representer(SafeRepresenter):
    """Quotes around texts that a mapping in one line would take for keys."""

    def represent_str(self, data: str) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if data.startswith(("?", ":")) else None)


# A date is text, as in the core schema of YAML 1.2.
_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)
_Representer.add_representer(str, _Representer.represent_str)


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor, yaml.Representer = _Constructor, _Representer
    yaml.default_flow_style, yaml.width = None, 110
    yaml.sort_base_mapping_type_on_output = False  # pyright: ignore[reportAttributeAccessIssue]
    return yaml


def read_yaml(text: str, source: str) -> Any:
    """The plain value of a YAML text: mappings with text keys, lists, numbers, texts, true, false and null.

    Arguments:
        text: one YAML document.
        source: the name of the text in errors.

    Raises:
        RecipeError: the text is no YAML, a key occurs twice or is no text, or a number is not finite.

    Example:
        >>> read_yaml("{lr: 1e-3, rows: 60_000, name: no}", "example")
        {'lr': 0.001, 'rows': 60000, 'name': 'no'}
    """
    try:
        return copy_plain(_yaml().load(text), source)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(source, [f"{where}no valid YAML: {reason}"]) from None


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

    def copy(value: Any, path: str, parents: tuple[int, ...]) -> Any:
        if id(value) in parents:
            problems.append(f"{path}: an alias may not contain itself")
            return None
        inner = (*parents, id(value))
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    problems.append(f"{path or 'top'}: keys need to be text, got {key!r}; put it in quotes")
            return {key: copy(item, f"{path}.{key}".lstrip("."), inner) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, f"{path}[{index}]", inner) for index, item in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            problems.append(f"{path}: needs a finite number, got {value}")
        elif value is not None and not isinstance(value, bool | int | float | str):
            problems.append(f"{path}: needs a plain value, got {value!r}")
        return value

    plain = copy(value, "", ())
    if problems:
        raise RecipeError(source, problems)
    return plain
