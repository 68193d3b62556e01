"""The command `moebius bench`."""

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
from moebius.kit.processor import instruction_set
from moebius.lab.bench.measure import bench
from moebius.lab.bench.table import print_tables
from moebius.lab.bench.workload import Workload


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
    """Measure a layer, print the figures, and write them as JSON.

    Arguments:
        layer: arguments of `Workload` other than the device.
        device: cpu, cuda, or auto for cuda where there is a GPU.
        rounds: number of rounds, as of `bench`.
        threads: number of PyTorch's threads; None = PyTorch's default.
        tuned: whether to tune the memory allocator.
        backward: whether to measure the backward too.
        json: file for the figures; None = none.
        console: where the figures are printed.

    Raises:
        ArgumentError: a size or a name out of range, cuda without a GPU, or a JSON file in a missing folder.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    workload = Workload(**layer, device=device)
    if json is not None and not json.parent.is_dir():
        raise ArgumentError("--json", "needs a file in a folder that exists", str(json), f"mkdir -p {json.parent}")
    if threads is not None:
        torch.set_num_threads(threads)
    allocator = tune_allocator() if tuned else "allocator: left as it comes"
    hardware = torch.cuda.get_device_name() if device == "cuda" else processor_name()
    hardware += "" if device == "cuda" else f" ({instruction_set()})"
    machine = f"{hardware}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    console.print(f"{workload}\n{machine}\n{allocator}", highlight=False)
    with console.status(f"measuring, {rounds} rounds"):
        measured = bench(workload, rounds, backward)
    print_tables(measured, console)
    if json is not None:
        conditions = {"moebius": __version__, "machine": machine, "allocator": allocator, "rounds": rounds}
        write_text(json, text.dumps({**conditions, **measured.plain()}, indent=1) + "\n")


def processor_name() -> str:
    """Name of this machine's processor; empty where the system does not tell it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
