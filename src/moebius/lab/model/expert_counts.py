"""How many experts the entries of a recipe stand for."""

from collections.abc import Mapping
from typing import Any

from moebius.kit.arguments import positive_integer
from moebius.kit.errors import ArgumentError

MOST = 4_096
"""Experts of one mixture."""


def expert_counts(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """The number of experts of each entry, by the entry's path.

    Raises:
        ArgumentError: a `count` is no whole number above 0, or they are more than `MOST` together.

    Example:
        >>> expert_counts({"experts.0": {"kind": "linear", "count": 3}, "experts.1": {"kind": "conv"}})
        {'experts.0': 3, 'experts.1': 1}
    """
    counts = {path: positive_integer(f"{path}.count", entry.get("count", 1)) for path, entry in entries.items()}
    if sum(counts.values()) > MOST:
        path = max(counts, key=counts.__getitem__)
        raise ArgumentError(f"{path}.count", f"needs at most {MOST:,} experts in all", counts[path], "count: 8")
    return counts
