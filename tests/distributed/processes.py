"""Models on 1, 2, 3 and 4 processes: `python processes.py FOLDER` trains each case and writes what came of it.

One interpreter imports everything once and forks the processes. Each process writes the results of each case, a file
each, with the gradients and weights that it holds; those of DTensors are whole.
"""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from cases import CASES, SAVED, WORLDS, formats
from storing import load_both, save
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from training import train

from moebius.distributed import _dispatched


@contextmanager
def multiplied_gradients(world: int) -> Iterator[None]:
    """Inside the block gradients of experts are `world` times too large: the error that tests have to see."""
    returned = _dispatched._Trip.return_outputs

    def return_outputs(trip: Any, outputs: Tensor, checks: bool) -> Tensor:
        too_large = outputs + (world - 1) * (outputs - outputs.detach())
        return returned(trip, too_large, checks)

    _dispatched._Trip.return_outputs = return_outputs  # type: ignore[method-assign]
    try:
        yield
    finally:
        _dispatched._Trip.return_outputs = returned  # type: ignore[method-assign]


def write(folder: Path, name: str, compute: Callable[[], Any]) -> None:
    """Write what is computed, or the error."""
    try:
        torch.save(compute(), folder / name)
    except Exception:
        (folder / f"{name}.error").write_text(traceback.format_exc(), encoding="utf-8")


def work(rank: int, world: int, folder: Path) -> None:
    """One process of `world`."""
    torch.set_num_threads(1)
    meeting = (folder / f"meeting-{world}").as_uri()
    dist.init_process_group("gloo", meeting, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    for name, case in CASES.items():
        if world in case.worlds:
            for kind, case_of_format, dtype in formats(case):
                write(
                    folder, f"{name} {kind} {world} {rank}", partial(train, case_of_format, dtype, world, rank, False)
                )
    with multiplied_gradients(world):
        for name in ("top-2 of a stack", "top-2 of unlike experts"):
            if name in CASES:
                case = replace(CASES[name], steps=1)
                compute = partial(train, case, torch.float64, world, rank, False)
                write(folder, f"multiplied {name} fp64 {world} {rank}", compute)
    if world == WORLDS[-1]:
        for name in SAVED:
            write(folder, f"saved {name} {rank}", partial(save, folder, name, world, rank))
    dist.destroy_process_group()


def load(rank: int, world: int, folder: Path) -> None:
    """One process of `world`: load what others saved, in both ways."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", (folder / "again").as_uri(), rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))
    for name, case in SAVED.items():
        write(folder, f"loaded {name} {rank}", partial(load_both, folder, name, case, mesh))
    dist.destroy_process_group()


def alone(folder: Path) -> None:
    """One process on the rows of all."""
    torch.set_num_threads(1)
    for name, case in CASES.items():
        for kind, case_of_format, dtype in formats(case):
            for world in case.worlds if case.by_process else case.worlds[:1]:
                result = train(case_of_format, dtype, world, 0, alone=True)
                torch.save(result, folder / f"{name} {kind} {world} alone")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    only = sys.argv[2:]
    for name in {*CASES} - {*(only or CASES)}:
        del CASES[name]
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=alone, args=(folder,))]
    for world in WORLDS:
        running += [context.Process(target=work, args=(rank, world, folder)) for rank in range(world)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    again = [context.Process(target=load, args=(rank, 3, folder)) for rank in range(3)]
    for process in again:
        process.start()
    for process in again:
        process.join()
    running += again
    sys.exit(any(process.exitcode for process in running))
