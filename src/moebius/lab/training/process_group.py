"""The process group in which several processes train one model: joined, and left again by whoever began it."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count as numbers_from
from typing import Any

import torch
from torch import distributed as dist

from moebius.core.processes import exchange, trains_alone
from moebius.kit.errors import ArgumentError

# What launchers set for each process that they start.
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# Longest time in which a process waits for another one, which may be at work on a callback or on files. A process that
# has died is noticed at once.
PATIENCE = timedelta(minutes=30)
_numbers = numbers_from()


def launched_processes() -> int:
    """How many processes `torchrun`, `accelerate launch` or another launcher has started, this one among them."""
    if not (dist.is_available() and all(name in os.environ for name in LAUNCHED)):
        return 1
    return int(os.environ["WORLD_SIZE"])


@contextmanager
def launched_group(device: str) -> Iterator[None]:
    """A block in which this process talks to the others that a launcher has started, if it has.

    A group that has begun before is used, and left as it is; a process that trains alone joins none.

    Arguments:
        device: "cpu" or "cuda".

    Raises:
        ArgumentError: there are fewer GPUs than processes on this machine.
        LostProcessError: another process has not come in `PATIENCE`.
    """
    if launched_processes() < 2 or dist.is_initialized() or trains_alone():
        yield
        return
    store, rank, count = meeting()
    # Each group has names of its own: those of the last one are still in the store.
    place = dist.PrefixStore(f"moebius/{next(_numbers)}", store)  # type: ignore[attr-defined]
    with process_group(device, place, rank, count, int(os.environ.get("LOCAL_RANK", rank))):
        yield


@functools.cache
def meeting() -> tuple[Any, int, int]:
    """The store in which launched processes meet, the number of this one, and how many there are."""
    with exchange():
        return next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]


@contextmanager
def process_group(device: str, store: Any, rank: int, count: int, local_rank: int) -> Iterator[None]:
    """A block in which this process belongs to a group.

    Arguments:
        device: "cpu" or "cuda".
        store: of torch.distributed, where the processes meet; nothing else has used its names.
        rank, count: number of this process, and how many there are.
        local_rank: its number among those of this machine.

    Raises:
        ArgumentError: this machine has no GPU of this number.
        LostProcessError: another process has not come in `PATIENCE`.
    """
    if device == "cuda":
        check_gpus(local_rank + 1)
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    with exchange():
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def check_gpus(count: int) -> None:
    """Check that this machine has a GPU for each of `count` processes."""
    if count > torch.cuda.device_count():
        rule = f"needs a GPU for each process, and this machine has {torch.cuda.device_count()}"
        raise ArgumentError("processes", rule, count, "--device cpu")
