"""What the benchmarks share: timing things in turn in one process, and saying what came out."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Arguments:
        name, value, unit: what was measured; the median over rounds.
        versus: the name it is compared with, if any.
        ratio: median over rounds of this rate divided by that of `versus` in the same round.
        spread: the smallest and largest ratio of the rounds (of the value itself where nothing is compared).
    """

    name: str
    value: float
    unit: str
    versus: str | None
    ratio: float | None
    spread: tuple[float, float]


def parser(description: str) -> argparse.ArgumentParser:
    """The command line that all benchmarks have: `--json PATH`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="also write the figures there, as a list of objects")
    return made


def rates(candidates: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Calls of each candidate in turn, `rounds` times after one that is not counted; what they return per second."""
    measured: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, candidate in candidates.items():
            begun = time.perf_counter()
            count = candidate()
            if number:
                measured[name].append(count / (time.perf_counter() - begun))
    return measured


def compare(measured: Mapping[str, list[float]], pairs: list[tuple[str, str]], unit: str, prefix: str) -> list[Row]:
    """A row for each candidate alone and one for each pair (this, versus), by the ratios within rounds."""
    rows = [
        Row(f"{prefix}{name}", statistics.median(values), unit, None, None, (min(values), max(values)))
        for name, values in measured.items()
    ]
    for name, versus in pairs:
        if name in measured and versus in measured:
            ratios = [a / b for a, b in zip(measured[name], measured[versus], strict=True)]
            value, ratio = statistics.median(measured[name]), statistics.median(ratios)
            rows.append(Row(f"{prefix}{name}", value, unit, f"{prefix}{versus}", ratio, (min(ratios), max(ratios))))
    return rows


def show(rows: list[Row]) -> None:
    """Print figures as a table."""
    for row in rows:
        low, high = row.spread
        if row.versus is None:
            print(f"{row.name:<44} {row.value:10.2f} {row.unit:<10} ({low:.2f} … {high:.2f})")
        else:
            print(f"{row.name:<44} {row.ratio:10.2f} × {row.versus} ({low:.2f} … {high:.2f})")


def write(rows: list[Row], path: Path | None) -> None:
    """Write figures as JSON where `--json` says."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def processor() -> str:
    """Name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
