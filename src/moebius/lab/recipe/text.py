"""YAML in and out: plain values only, no duplicate keys, and `1e-3` is a number."""

import math
import re
from typing import Any

import yaml

from moebius.kit.errors import RecipeError

# YAML 1.2's core schema, plus 60_000 for 60000: `1e-3` is a number, `no`, `on` and dates are text.
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
        seen: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice, first in line {seen[key.value]}", key.start_mark
                )
            seen[str(key.value)] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


# None of YAML 1.1's.
_Loader.yaml_implicit_resolvers = {}
_Dumper.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def read_yaml(text: str, source: str) -> Any:
    """The plain value (mappings with text keys, lists, numbers, texts, null) that a YAML text writes down.

    Arguments:
        text: one YAML document.
        source: what to call it in errors.

    Raises:
        RecipeError: no YAML, a key given twice, a key that is no text, a number that is not finite.

    Example:
        >>> read_yaml("{lr: 1e-3, rows: 60_000, name: no}", "example")
        {'lr': 0.001, 'rows': 60000, 'name': 'no'}
    """
    try:
        # A subclass of SafeLoader: it builds plain values and can run nothing.
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(source, [f"{where}no valid YAML: {what}"]) from None
    problems: list[str] = []
    plain = _plain(value, "", (), problems)
    if problems:
        raise RecipeError(source, problems)
    return plain


def write_yaml(value: Any) -> str:
    """YAML text that `read_yaml` reads back as the same value: short lists and mappings in one line, no aliases.

    Example:
        >>> write_yaml({"gate": {"kind": "linear"}, "rows": [1, 2]}).splitlines()
        ['gate: {kind: linear}', 'rows: [1, 2]']
    """
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None, indent=2
    )


def _plain(value: Any, path: str, parents: tuple[int, ...], problems: list[str]) -> Any:
    """A copy in which nothing is shared, so that an override of one alias leaves the others alone."""
    if id(value) in parents:
        problems.append(f"{path}: an alias may not contain itself")
        return None
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                problems.append(f"{path or 'top'}: keys need to be text, got {key!r}; put it in quotes")
        inner = (*parents, id(value))
        return {key: _plain(item, f"{path}.{key}".lstrip("."), inner, problems) for key, item in value.items()}
    if isinstance(value, list):
        inner = (*parents, id(value))
        return [_plain(item, f"{path}[{index}]", inner, problems) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{path}: needs a finite number, got {value}")
    elif value is not None and not isinstance(value, bool | int | float | str):
        problems.append(f"{path}: needs a plain value, got {value!r}")
    return value
