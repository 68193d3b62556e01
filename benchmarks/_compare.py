"""What the benchmarks share: the command line, timing of candidates in turn in one process, and output of figures."""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from moebius.kit.allocator import tune_allocator
from moebius.kit.processor import instruction_set
from moebius.lab.bench.command import processor_name
from moebius.lab.bench.timing import Measurement, comparison_rows, time_in_turn

__all__ = [
    "Measurement",
    "comparison_rows",
    "make_parser",
    "measure_rates",
    "prepare_process",
    "print_rows",
    "processor_name",
    "write_rows",
]


def make_parser(description: str) -> argparse.ArgumentParser:
    """The command line of every benchmark, with its option `--json PATH`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file, as a list of objects")
    return parser


def measure_rates(candidates: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Call the candidates in turn; the result holds, for each call, the count that it returned per second."""
    calls = time_in_turn(candidates, rounds)
    return {name: [count / seconds for seconds, count in pairs] for name, pairs in calls.items()}


def print_rows(rows: list[Measurement]) -> None:
    """Print figures as a table."""
    for row in rows:
        low, high = row.spread
        if row.versus is None:
            print(f"{row.name:<44} {row.value:10.2f} {row.unit:<10} ({low:.2f} … {high:.2f})")
        else:
            print(f"{row.name:<44} {row.ratio:10.2f} × {row.versus} ({low:.2f} … {high:.2f})")


def write_rows(rows: list[Measurement], path: Path | None) -> None:
    """Write figures as JSON to the file that `--json` names; nothing where it is None."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def prepare_process(threads: int, untuned: bool) -> None:
    """Set the number of threads, tune the allocator unless `untuned`, and print the conditions of the measurement."""
    torch.set_num_threads(threads)
    processor = f"{processor_name()} ({instruction_set()})"
    print(f"{processor}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}")
    print("allocator: not tuned" if untuned else tune_allocator())
