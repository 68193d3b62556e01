"""What the benchmarks share: timing things in turn in one process, and saying what came out."""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from moebius.kit.allocator import tune_allocator
from moebius.lab.bench.command import processor
from moebius.lab.bench.timing import Row, compare, in_turn

__all__ = ["Row", "compare", "header", "parser", "processor", "rates", "show", "write"]


def parser(description: str) -> argparse.ArgumentParser:
    """The command line that all benchmarks have: `--json PATH`."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="also write the figures there, as a list of objects")
    return made


def rates(candidates: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Calls of each candidate in turn, `rounds` times after one that is not counted; what they return per second."""
    calls = in_turn(candidates, rounds)
    return {name: [count / seconds for seconds, count in each] for name, each in calls.items()}


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


def header(threads: int, untuned: bool) -> None:
    """Set the number of threads and the allocator, and print what the figures hold for."""
    torch.set_num_threads(threads)
    print(f"{processor()}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}")
    print("allocator: as it comes" if untuned else tune_allocator())
