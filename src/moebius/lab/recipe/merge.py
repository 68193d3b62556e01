"""How a variant is laid over what all variants share."""

import copy
from typing import Any

from moebius.lab.recipe.problems import Path


def merge(base: Any, over: Any) -> Any:
    """`over` laid on `base`: mappings merge key by key, everything else is replaced; neither argument changes.

    A mapping that names another `kind` replaces: keywords of one kind mean nothing to another.

    Example:
        >>> merge({"gate": {"kind": "mlp", "hidden": [64]}}, {"gate": {"hidden": [128]}})
        {'gate': {'kind': 'mlp', 'hidden': [128]}}
        >>> merge({"gate": {"kind": "mlp", "hidden": [64]}}, {"gate": {"kind": "linear"}})
        {'gate': {'kind': 'linear'}}
    """
    if not merges(base, over):
        return copy.deepcopy(over)
    merged = {key: copy.deepcopy(value) for key, value in base.items() if key not in over}
    both = {key: merge(base[key], value) if key in base else copy.deepcopy(value) for key, value in over.items()}
    # The order of the base, so that variants read alike.
    return {key: both.get(key, merged.get(key)) for key in [*base, *(key for key in over if key not in base)]}


def merges(base: Any, over: Any) -> bool:
    """Whether two values merge key by key."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return False
    return "kind" not in over or over["kind"] == base.get("kind")


def comes_from_base(base: Any, over: Any, path: Path) -> bool:
    """Whether what `merge(base, over)` holds at `path` was written in `base`, or its mapping was.

    Example:
        >>> comes_from_base({"gate": {"kind": "mlp"}}, {"gate": {"hidden": []}}, ("gate", "hidden"))
        False
        >>> comes_from_base({"gate": {"kind": "mlp"}}, {}, ("gate", "hidden"))
        True
    """
    if not path or not merges(base, over):
        return False
    head, rest = path[0], path[1:]
    if head in over:
        return head in base and comes_from_base(base[head], over[head], rest)
    return head in base or "kind" not in over
