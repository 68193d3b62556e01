"""The settings of each variant as its runs had them, and the keys by which variants differ."""

from collections.abc import Mapping
from typing import Any

from moebius.kit.merge import merge, shared_model
from moebius.lab.report.points import value_words
from moebius.lab.report.source import Study

ABSENT = "–"
# What is no setting of a single variant.
SHARED = ("training", "data")
LONG = 80


def settings_of(study: Study, variant: str) -> dict[str, Any]:
    """The model, training and data of a variant: its changes laid over what all variants share.

    Returns:
        Nested plain values; empty where study.json has no recipe.
    """
    recipe = study.recipe
    changes = (recipe.get("variants") or {}).get(variant) or {}
    shared = {key: recipe.get(key) or {} for key in SHARED}
    model = shared_model(recipe.get("model") or {}, {key: changes[key] for key in changes.keys() - set(SHARED)})
    settings = merge({**model, **shared}, changes)
    point = study.chosen.get(variant)
    for path, value in (point.values if point else {}).items():
        settings = merge(settings, _nest(path, value))
    return settings


def differing_settings(study: Study) -> dict[str, dict[str, str]]:
    """Key → variant → its value in words, of the keys whose values are not the same in all variants.

    A part is one value where its kind differs, or where a variant lacks it; else its keys are compared one by one.
    Values longer than 80 characters are cut, unless two of them then look alike.
    """
    columns = _compare({variant: settings_of(study, variant) for variant in study.variants}, "")
    return {key: _shorten({variant: _words(value) for variant, value in column.items()}) for key, column in columns}


def _compare(values: Mapping[str, Any], path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The paths at which the values of variants differ, with these values."""
    first, *others = values.values()
    if all(_is_equal(first, value) for value in others):
        return []
    together = all(isinstance(value, Mapping) and value.get("kind") == _kind(first) for value in values.values())
    # Nothing is the same as an empty part at the top, where every part has a name of its own.
    if not together or (path and not all(values.values())):
        return [(path, values)]
    keys = dict.fromkeys(key for value in values.values() for key in value)
    return [
        leaf
        for key in keys
        for leaf in _compare(
            {variant: value.get(key) for variant, value in values.items()}, f"{path}.{key}".lstrip(".")
        )
    ]


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else None


def _is_equal(first: Any, second: Any) -> bool:
    return first == second or (first in (None, [], {}) and second in (None, [], {}))


def _words(value: Any) -> str:
    if value is None or value in ([], {}):
        return ABSENT
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {_words(part)}" for key, part in value.items() if key != "kind" and part is not None)
        if "kind" not in value:
            return rest
        kind = str(value["kind"])
        return rest if list(value) == ["kind", kind] else f"{kind} ({rest})" if rest else kind
    if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
        return " + ".join(map(_words, value))
    return value_words(value)


def _shorten(words: Mapping[str, str]) -> dict[str, str]:
    short = {name: text if len(text) <= LONG else f"{text[: LONG - 1]}…" for name, text in words.items()}
    return short if len(set(short.values())) == len(set(words.values())) else dict(words)


def _nest(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value
