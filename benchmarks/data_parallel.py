"""What training in processes costs and gives: one process of a launcher, and two processes beside two threads.

    python benchmarks/data_parallel.py

Two processes train an epoch of random images together, one thread each; in turn with this the first of them trains it
alone, with two threads and with one, while the second waits. A third measure is the loop in a process group of one, as
under `torchrun --nproc-per-node 1`, beside the loop without a group: by the process's own processor time, which depends
less on what else the machine does. The models are study 1's, whose steps take so little time that every message shows,
and study 2's with a dense gate. Ratios are taken within rounds of one process; shown are their medians and quartiles.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from _compare import processor_name
from steps import STUDY_1, STUDY_2, random_data
from torch import distributed as dist
from torch import multiprocessing

from moebius.core.processes import Company, company
from moebius.lab.model.build import build_model
from moebius.lab.training.engine import Member
from moebius.lab.training.loop import Loop
from moebius.lab.training.settings import Settings

BATCH = 128


def make_epoch(
    model: dict, rows: int, is_alone: bool, clock: Callable[[], float] = time.perf_counter
) -> Callable[[], float]:
    """A function that trains an epoch and returns its seconds by a clock."""
    data = random_data(rows)
    settings = Settings.model_validate({"epochs": 1, "batch_size": BATCH, "precision": "fp32"})
    folder = Path(tempfile.mkdtemp())
    member = Member(lambda: build_model(model, data.facts), settings, 0, folder)
    with company(Company.ALONE) if is_alone else nullcontext():
        loop = Loop([member], data, folder / "checkpoint.safetensors")

    def epoch() -> float:
        loop.records[0].progress.batch = 0
        begin = clock()
        with company(Company.ALONE) if is_alone else nullcontext():
            loop.train_epoch()
        return clock() - begin

    return epoch


def quartiles(values: Sequence[float]) -> str:
    """The median, and the quartiles around it."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} … {high:.3f})"


def beside_threads(rank: int, meeting: str, rounds: int) -> None:
    """Two processes beside two threads, and beside one."""
    dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
    for name, model, rows in (("study 1", STUDY_1, 128 * 100), ("study 2", STUDY_2, 128 * 4)):
        torch.set_num_threads(1)
        together = make_epoch(model, rows, False)
        alone = make_epoch(model, rows, True)
        seconds: dict[str, list[float]] = {"two threads": [], "one thread": [], "two processes": []}
        for _ in range(rounds + 1):
            for kind, threads in (("two threads", 2), ("one thread", 1)):
                torch.set_num_threads(threads)
                if rank == 0:
                    seconds[kind].append(alone())
                dist.barrier()
            seconds["two processes"].append(together())
            dist.barrier()
        if rank == 0:
            print(f"{name}: {1e3 * statistics.median(seconds['two processes'][1:]) / (rows / BATCH):.2f} ms a step")
            for kind in ("two threads", "one thread"):
                pairs = zip(seconds["two processes"][1:], seconds[kind][1:], strict=True)
                print(f"  time of two processes / {kind}: {quartiles([first / second for first, second in pairs])}")
    dist.destroy_process_group()


def in_group_of_one(rounds: int) -> None:
    """The loop in a process group of one beside the loop without one, and that beside itself."""
    torch.set_num_threads(1)
    plain, again = (make_epoch(STUDY_1, 128 * 100, False, time.process_time) for _ in range(2))
    dist.init_process_group("gloo", (Path(tempfile.mkdtemp()) / "meeting").as_uri(), rank=0, world_size=1)
    launched = make_epoch(STUDY_1, 128 * 100, False, time.process_time)
    dist.destroy_process_group()
    ratios, control = [], []
    for number in range(2 * rounds + 1):
        before = plain()
        dist.init_process_group("gloo", (Path(tempfile.mkdtemp()) / "meeting").as_uri(), rank=0, world_size=1)
        inside = launched()
        dist.destroy_process_group()
        after = again()
        if number:
            ratios.append(inside / before)
            control.append(after / before)
    print(f"study 1, a group of one process / no group: {quartiles(ratios)}; no group / no group: {quartiles(control)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{processor_name()}, {os.cpu_count()} cores, torch {torch.__version__}")
    in_group_of_one(options.rounds)
    meeting = (Path(tempfile.mkdtemp()) / "meeting").as_uri()
    multiprocessing.spawn(beside_threads, (meeting, options.rounds), nprocs=2)
