"""Lays the values of a variant over those that all variants share."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any


def merge(base: Any, over: Any) -> Any:
    """`over` laid over `base`: mappings merge key by key, every other value is replaced; no argument is changed.

    A mapping that names another `kind` replaces the mapping below it: the keywords of a kind mean nothing to another.

    Example:
        >>> merge({"gate": {"kind": "mlp", "hidden": [64]}}, {"gate": {"hidden": [128]}})
        {'gate': {'kind': 'mlp', 'hidden': [128]}}
        >>> merge({"gate": {"kind": "mlp", "hidden": [64]}}, {"gate": {"kind": "linear"}})
        {'gate': {'kind': 'linear'}}
    """
    if not can_merge(base, over):
        return copy.deepcopy(over)
    kept = {key: copy.deepcopy(value) for key, value in base.items() if key not in over}
    changed = {key: merge(base[key], value) if key in base else copy.deepcopy(value) for key, value in over.items()}
    # Keys in the order of the base, so that all variants read alike.
    return {key: changed.get(key, kept.get(key)) for key in [*base, *(key for key in over if key not in base)]}


def merge_model(model: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """A variant's changes laid over the shared model part; layers take the place of a mixture, and it that of layers.

    A start alone, `init`, is no model: it is laid over either.

    Example:
        >>> merge_model({"gate": {"kind": "linear"}, "init": "keras"}, {"layers": [{"kind": "mlp"}]})
        {'init': 'keras', 'layers': [{'kind': 'mlp'}]}
        >>> merge_model({"layers": [{"kind": "mlp"}]}, {"init": "keras"})
        {'layers': [{'kind': 'mlp'}], 'init': 'keras'}
    """
    return merge(shared_model(model, changes), dict(changes))


def shared_model(model: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of the shared model part below a variant's changes."""
    if ("layers" in model) != ("layers" in changes) and changes.keys() - {"init"}:
        return {key: value for key, value in model.items() if key == "init"}
    return dict(model)


def can_merge(base: Any, over: Any) -> bool:
    """Whether two values merge key by key: both are mappings, and `over` names no other kind."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return False
    return "kind" not in over or over["kind"] == base.get("kind")


def comes_from_base(base: Any, over: Any, path: Sequence[str | int]) -> bool:
    """Whether `base` wrote the value that `merge(base, over)` has at `path`, or the mapping that the value is in.

    Example:
        >>> comes_from_base({"gate": {"kind": "mlp"}}, {"gate": {"hidden": []}}, ("gate", "hidden"))
        False
        >>> comes_from_base({"gate": {"kind": "mlp"}}, {}, ("gate", "hidden"))
        True
    """
    if not path or not can_merge(base, over):
        return False
    head, rest = path[0], path[1:]
    if head in over:
        return head in base and comes_from_base(base[head], over[head], rest)
    return head in base or "kind" not in over
