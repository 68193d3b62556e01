"""What the command `moebius bench` does."""

import json as text
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from moebius import __version__
from moebius.kit.allocator import tune_allocator
from moebius.kit.errors import ArgumentError
from moebius.kit.files import write_text
from moebius.lab.bench.measure import bench
from moebius.lab.bench.problem import Problem
from moebius.lab.bench.table import show


def run(
    layer: Mapping[str, Any],
    device: str,
    rounds: int,
    threads: int | None,
    tuned: bool,
    backward: bool,
    json: Path | None,
    console: Console,
) -> None:
    """Measure, print, and write the figures where `json` says.

    Raises:
        ArgumentError: a size or name out of range, a GPU that is not there, or a folder that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    problem = Problem(**layer, device=device)
    if json is not None and not json.parent.is_dir():
        raise ArgumentError("--json", "needs a file in a folder that is there", str(json), f"mkdir -p {json.parent}")
    if threads is not None:
        torch.set_num_threads(threads)
    allocator = tune_allocator() if tuned else "allocator: left as it comes"
    where = torch.cuda.get_device_name() if device == "cuda" else processor()
    machine = f"{where}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    console.print(f"{problem}\n{machine}\n{allocator}", highlight=False)
    with console.status(f"measuring, {rounds} rounds"):
        measured = bench(problem, rounds, backward)
    show(measured, console)
    if json is not None:
        about = {"moebius": __version__, "machine": machine, "allocator": allocator, "rounds": rounds}
        write_text(json, text.dumps({**about, **measured.plain()}, indent=1) + "\n")


def processor() -> str:
    """Name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
