"""Timing things in turn in one process, so that the machine's drift hits them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Arguments:
        name, value, unit: what was measured; the median over rounds.
        versus: the name it is compared with, if any.
        ratio: median over rounds of this value divided by that of `versus` in the same round.
        spread: the smallest and largest ratio of the rounds (of the value itself where nothing is compared).
    """

    name: str
    value: float
    unit: str
    versus: str | None
    ratio: float | None
    spread: tuple[float, float]


def in_turn(
    candidates: Mapping[str, Callable[[], Any]],
    rounds: int,
    wait: Callable[[], Any] | None = None,
    uncounted: int = 1,
) -> dict[str, list[tuple[float, Any]]]:
    """Calls of each candidate in turn: for each of `rounds` the seconds, and what it gave.

    Arguments:
        candidates: by name; every second round goes through them backwards, so that none always follows the same one.
        rounds: how many count.
        wait: called before each look at the clock, where work goes on behind the caller's back (a GPU).
        uncounted: rounds before those that count.

    Example:
        >>> calls = in_turn({"nothing": lambda: 3}, rounds=2)
        >>> [given for _, given in calls["nothing"]]
        [3, 3]
    """
    wait = wait or (lambda: None)
    measured: dict[str, list[tuple[float, Any]]] = {name: [] for name in candidates}
    for number in range(rounds + uncounted):
        names = list(candidates)
        for name in names if number % 2 == 0 else names[::-1]:
            wait()
            begun = time.perf_counter()
            given = candidates[name]()
            wait()
            if number >= uncounted:
                measured[name].append((time.perf_counter() - begun, given))
    return measured


def seconds(calls: Mapping[str, Sequence[tuple[float, Any]]]) -> dict[str, list[float]]:
    """The times alone of what `in_turn` gives."""
    return {name: [time for time, _ in each] for name, each in calls.items()}


def alone(name: str, values: Sequence[float], unit: str) -> Row:
    """The figure of one candidate by itself.

    Example:
        >>> alone("loop", [1.0, 4.0, 2.0], "ms")
        Row(name='loop', value=2.0, unit='ms', versus=None, ratio=None, spread=(1.0, 4.0))
    """
    return Row(name, statistics.median(values), unit, None, None, (min(values), max(values)))


def beside(name: str, values: Sequence[float], versus: str, others: Sequence[float], unit: str) -> Row:
    """The figure of one candidate beside another's, by the ratios within rounds.

    Example:
        >>> row = beside("sorted", [1.0, 2.0, 3.0], "loop", [2.0, 4.0, 2.0], "ms")
        >>> row.ratio, row.spread
        (0.5, (0.5, 1.5))
    """
    ratios = [a / b for a, b in zip(values, others, strict=True)]
    return Row(name, statistics.median(values), unit, versus, statistics.median(ratios), (min(ratios), max(ratios)))


def compare(measured: Mapping[str, list[float]], pairs: list[tuple[str, str]], unit: str, prefix: str) -> list[Row]:
    """A row for each candidate alone and one for each pair (this, versus)."""
    rows = [alone(f"{prefix}{name}", values, unit) for name, values in measured.items()]
    for name, versus in pairs:
        if name in measured and versus in measured:
            rows.append(beside(f"{prefix}{name}", measured[name], f"{prefix}{versus}", measured[versus], unit))
    return rows
