"""Reads and writes YAML: plain values only, no duplicate keys, and `1e-3` is a number."""

import math
import re
from typing import Any

import yaml

from moebius.kit.errors import RecipeError

# The core schema of YAML 1.2, with underscores in numbers: `1e-3` and `60_000` are numbers; `no`, `on` and dates, text.
_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+.0123456789"),
    ),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice, first in line {lines[key.value]}", key.start_mark
                )
            lines[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# The rules of YAML 1.1 go: they read `no` as false, and `1e-3` as text.
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first_characters in _SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first_characters)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first_characters)


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
        # A subclass of SafeLoader builds plain values and runs no code.
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(source, [f"{where}no valid YAML: {reason}"]) from None
    problems: list[str] = []
    plain = _copy_plain(value, "", (), problems)
    if problems:
        raise RecipeError(source, problems)
    return plain


def write_yaml(value: Any) -> str:
    """YAML text of a plain value, which `read_yaml` reads back: short lists and mappings in one line, no aliases.

    Example:
        >>> write_yaml({"gate": {"kind": "linear"}, "rows": [1, 2]}).splitlines()
        ['gate: {kind: linear}', 'rows: [1, 2]']
    """
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None, indent=2
    )


def _copy_plain(value: Any, path: str, parents: tuple[int, ...], problems: list[str]) -> Any:
    """A copy in which aliases share nothing: an override of one leaves the others as they are.

    Arguments:
        value: of PyYAML.
        path: of the value, for problems.
        parents: identities of the mappings and lists around the value.
        problems: what is wrong is added here.
    """
    if id(value) in parents:
        problems.append(f"{path}: an alias may not contain itself")
        return None
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                problems.append(f"{path or 'top'}: keys need to be text, got {key!r}; put it in quotes")
        inner = (*parents, id(value))
        return {key: _copy_plain(item, f"{path}.{key}".lstrip("."), inner, problems) for key, item in value.items()}
    if isinstance(value, list):
        inner = (*parents, id(value))
        return [_copy_plain(item, f"{path}[{index}]", inner, problems) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{path}: needs a finite number, got {value}")
    elif value is not None and not isinstance(value, bool | int | float | str):
        problems.append(f"{path}: needs a plain value, got {value!r}")
    return value
