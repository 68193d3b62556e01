"""The name of a point: that of its variant and its values, which is also the name of its folder."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from moebius.lab.checks.problems import Path, parse_path

# File systems take names of 255 bytes, and messages should stay readable.
LONGEST = 120


def point_name(variant: str, values: Mapping[str, Any]) -> str:
    """VARIANT@KEY=VALUE,…: each key as short as the keys of the sweep can be told apart by.

    Example:
        >>> point_name("conv", {"training.gate.lr": 1e-4, "training.experts.lr": 0.01, "model.gate.filters": [8, 16]})
        'conv@gate.lr=0.0001,experts.lr=0.01,filters=8-16'
    """
    pairs = zip(short_keys(list(values)), values.values(), strict=True)
    name = f"{variant}@{','.join(f'{key}={value_text(value)}' for key, value in pairs)}"
    if len(name) <= LONGEST:
        return name
    return f"{variant}@{hashlib.sha256(json.dumps(dict(values)).encode()).hexdigest()[:16]}"


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last parts of each key, as many as tell it from the others.

    Example:
        >>> short_keys(["training.gate.lr", "training.experts.lr", "variants.l1.training.losses[0].weight"])
        ['gate.lr', 'experts.lr', 'weight']
    """
    paths = [parse_path(key) for key in keys]

    def shorten(path: Path) -> str:
        others = [each for each in paths if each != path]
        for length in range(1, len(path) + 1):
            if all(each[-length:] != path[-length:] for each in others):
                return ".".join(map(str, path[-length:]))
        return ".".join(map(str, path))

    return [shorten(path) for path in paths]


def value_text(value: Any) -> str:
    """A value in a name: letters, digits and `_ . + -`.

    Example:
        >>> value_text(0.001), value_text([64, 64]), value_text({"kind": "cosine", "start": 1e-3, "end": 0})
        ('0.001', '64-64', 'cosine-start0.001-end0')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return "-".join(f"{'' if key == 'kind' else key}{value_text(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "-".join(map(value_text, value))
    return re.sub(r"[^\w.+-]+", "-", value)
