"""Timing of several candidates in turn in one process, so that changes in the machine's speed affect all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One figure of a benchmark.

    Arguments:
        name: name of what is measured.
        value: median over the rounds.
        unit: unit of the value.
        versus: name of the figure that this one is compared with; None = no comparison.
        ratio: median over the rounds of this figure's value divided by the value of `versus` in the same round.
        spread: smallest and largest ratio over the rounds; smallest and largest value where there is no comparison.
    """

    name: str
    value: float
    unit: str
    versus: str | None
    ratio: float | None
    spread: tuple[float, float]


def time_in_turn(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int,
    wait: Callable[[], Any] | None = None,
    uncounted: int = 1,
) -> dict[str, list[tuple[float, Any]]]:
    """Call all candidates once in every round, and time each call.

    Every second round calls them in reverse order, so that no candidate always runs after the same other one.

    Arguments:
        candidates: functions by name.
        rounds: number of rounds that count.
        wait: called before every reading of the clock, for work that continues after a call returns (on a GPU).
        uncounted: number of rounds before those that count, for warming up.

    Returns:
        For each candidate, a pair (seconds, returned value) per round.

    Example:
        >>> calls = time_in_turn({"nothing": lambda: 3}, rounds=2)
        >>> [value for _, value in calls["nothing"]]
        [3, 3]
    """
    wait = wait or (lambda: None)
    calls: dict[str, list[tuple[float, Any]]] = {name: [] for name in candidates}
    for number in range(rounds + uncounted):
        names = list(candidates)
        for name in names if number % 2 == 0 else names[::-1]:
            wait()
            start = time.perf_counter()
            value = candidates[name]()
            wait()
            if number >= uncounted:
                calls[name].append((time.perf_counter() - start, value))
    return calls


def durations(calls: Mapping[str, Sequence[tuple[float, Any]]]) -> dict[str, list[float]]:
    """The seconds of each call that `time_in_turn` timed."""
    return {name: [seconds for seconds, _ in pairs] for name, pairs in calls.items()}


def value_row(name: str, values: Sequence[float], unit: str) -> Measurement:
    """The figure of one candidate, without a comparison.

    Example:
        >>> value_row("loop", [1.0, 4.0, 2.0], "ms")
        Measurement(name='loop', value=2.0, unit='ms', versus=None, ratio=None, spread=(1.0, 4.0))
    """
    return Measurement(name, statistics.median(values), unit, None, None, (min(values), max(values)))


def ratio_row(
    name: str, values: Sequence[float], versus: str, versus_values: Sequence[float], unit: str
) -> Measurement:
    """The figure of one candidate compared with another, by the ratios within the rounds.

    Arguments:
        name, values: the candidate, and its value in each round.
        versus, versus_values: the candidate that it is compared with, and its value in each round.
        unit: unit of the values.

    Example:
        >>> row = ratio_row("sorted", [1.0, 2.0, 3.0], "loop", [2.0, 4.0, 2.0], "ms")
        >>> row.ratio, row.spread
        (0.5, (0.5, 1.5))
    """
    ratios = [value / versus_value for value, versus_value in zip(values, versus_values, strict=True)]
    return Measurement(
        name, statistics.median(values), unit, versus, statistics.median(ratios), (min(ratios), max(ratios))
    )


def comparison_rows(
    values: Mapping[str, list[float]], pairs: list[tuple[str, str]], unit: str, prefix: str
) -> list[Measurement]:
    """The figures of all candidates, then their comparisons.

    Arguments:
        values: for each candidate, its value in each round.
        pairs: candidates to compare, (name, versus); a pair with a candidate that was not measured is skipped.
        unit: unit of the values.
        prefix: text before every name.
    """
    rows = [value_row(f"{prefix}{name}", candidate_values, unit) for name, candidate_values in values.items()]
    for name, versus in pairs:
        if name in values and versus in values:
            rows.append(ratio_row(f"{prefix}{name}", values[name], f"{prefix}{versus}", values[versus], unit))
    return rows
