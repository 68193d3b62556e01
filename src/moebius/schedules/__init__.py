"""Schedules: epoch → value, for learning rates and weights of losses; a bare number means a constant."""

from collections.abc import Callable, Mapping
from typing import Any

from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds, open_room

Schedule = Callable[[float], float]


def as_schedule(value: float | int | Mapping[str, Any] | Schedule) -> Schedule:
    """The schedule that `value` describes.

    Arguments:
        value: a number (constant), a recipe's mapping `{kind: cosine, start: 1e-3, end: 0, epochs: 20}`, or a callable
            from epoch (float, 0 at the start of training) to value, which is returned unchanged.

    Raises:
        ArgumentError: the mapping has no `kind`, or the kind's arguments break a rule.
        UnknownKindError: no schedule has this kind.

    Example:
        >>> as_schedule(0.5)(3.25)
        0.5
        >>> as_schedule({"kind": "linear", "start": 0.0, "end": 1.0, "epochs": 4})(1.0)
        0.25
    """
    if isinstance(value, Mapping):
        if "kind" not in value:
            raise ArgumentError(
                "schedule", "needs a kind", dict(value), f"kind: one of {', '.join(kinds('schedules'))}"
            )
        arguments = {name: argument for name, argument in value.items() if name != "kind"}
        return find("schedules", value["kind"])(**arguments)
    if callable(value):
        return value
    return find("schedules", "constant")(value)


open_room(__name__)
