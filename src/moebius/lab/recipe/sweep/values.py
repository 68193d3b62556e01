"""The combinations of values that a sweep tries, fixed before any result is known."""

import itertools
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from moebius.lab.recipe.schema.sweep import RangeSpec, SweepSpec


def spread_values(tried: Any) -> list[Any]:
    """The values of a swept key in a grid: those of a list, or `count` values of a range.

    Example:
        >>> spread_values({"low": 1e-4, "high": 1e-2, "scale": "log", "count": 3})
        [0.0001, 0.001, 0.01]
        >>> spread_values({"low": 1, "high": 8, "scale": "log", "count": 4})
        [1, 2, 4, 8]
    """
    if not isinstance(tried, Mapping):
        return list(tried)
    spec = RangeSpec.model_validate(tried)
    spread = np.geomspace if spec.scale == "log" else np.linspace
    values = [round_value(spec, float(value)) for value in spread(spec.low, spec.high, spec.count or 2)]
    return list(dict.fromkeys(values))


def round_value(spec: RangeSpec, value: float | int) -> float | int:
    """A value of a range with three significant digits, or a whole number: names of points tell values exactly."""
    if spec.is_whole:
        return round(value)
    return min(max(float(f"{value:.3g}"), spec.low), spec.high)


def combine_values(sweep: SweepSpec, keys: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The combinations that a grid or a random sweep tries, in order; for optuna those that it might propose.

    The draws of a trial depend on the seed, the trial's number and the key alone: more trials and further keys keep
    the values that have been drawn, and all variants get the same.

    Arguments:
        sweep: the method and its numbers.
        keys: swept key → its list of values or its range.

    Example:
        >>> sweep = SweepSpec(keys={"a": [1, 2], "b": [3]})
        >>> combine_values(sweep, sweep.keys)
        [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    if sweep.method == "random":
        points = [
            {key: _draw(tried, sweep.seed, trial, key) for key, tried in keys.items()} for trial in range(sweep.trials)
        ]
        # Few values are drawn again and again.
        return [point for place, point in enumerate(points) if point not in points[:place]]
    spread = [spread_values(tried) for tried in keys.values()]
    if sweep.method == "grid":
        return [dict(zip(keys, values, strict=True)) for values in itertools.product(*spread)]
    # Each value once, and the ends of ranges.
    most = max(map(len, spread))
    return [
        {key: values[min(place, len(values) - 1)] for key, values in zip(keys, spread, strict=True)}
        for place in range(most)
    ]


def _draw(tried: Any, seed: int, trial: int, key: str) -> Any:
    generator = np.random.default_rng([seed, trial, zlib.crc32(key.encode())])
    if not isinstance(tried, Mapping):
        return tried[int(generator.integers(len(tried)))]
    spec = RangeSpec.model_validate(tried)
    if spec.scale == "log":
        value = float(np.exp(generator.uniform(np.log(spec.low), np.log(spec.high))))
    elif spec.is_whole:
        value = float(generator.integers(int(spec.low), int(spec.high), endpoint=True))
    else:
        value = float(generator.uniform(spec.low, spec.high))
    return round_value(spec, value)
