"""Measures this machine for the model of costs: products, memory, calls, and gloo's collectives.

Nothing here is a training step of the model of layers that `scale.py --check` runs, and no number is fitted to one.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import Any

import numpy as np
import torch
from _compare import processor_name
from _scale_machine import Link, Machine, Rate
from _scale_model import ADAM_BYTES, sent_bytes
from _scale_runs import on_processes
from torch import distributed as dist

import moebius as mb

# Widths D and hidden of measured experts.
WIDTHS = ((64, 128), (256, 512), (512, 1024))
EXPERTS, K = 16, 2
# Work that slowdowns are measured by: D, hidden, E, k and rows of a layer, and a step of Adam.
REFERENCE = (256, 512, EXPERTS, K, 512)
ADAM_PARAMETERS = 2**23
# A time is the least of so many calls, and of as many as take so long.
LEAST_CALLS, LEAST_SECONDS = 7, 0.5
ROWS_PER_EXPERT = (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SIZES = (2**12, 2**16, 2**18, 2**20, 2**22, 2**24)


def seconds_of(call: Callable[[], Any], shared: bool = False) -> float:
    """The least seconds of some calls; `shared`: all processes begin together, and the slowest counts.

    The least of several is what a machine does that has nothing else to do.
    """
    times: list[float] = []
    while len(times) < LEAST_CALLS or sum(times) < LEAST_SECONDS:
        if shared:
            dist.barrier()
        begin = time.perf_counter()
        call()
        duration = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        if shared:
            dist.all_reduce(duration, dist.ReduceOp.MAX)
        times.append(float(duration))
    return min(times)


def make_step(dim: int, hidden: int, experts: int, k: int, rows: int) -> Callable[[], None]:
    """Forward and backward of a sparse layer, with the gradient of its rows."""
    layer = mb.layers.SparseFFN(dim, hidden, experts, k, bias=False)
    x, slope = torch.randn(rows, dim, requires_grad=True), torch.randn(rows, dim)

    def step() -> None:
        layer.zero_grad()
        layer(x).backward(slope)

    return step


def measure_rates(call_seconds: float) -> list[Rate]:
    """FLOP a second of a layer's experts, by rows of an expert, without the time to call the layer."""
    rates = []
    for dim, hidden in WIDTHS:
        parameters = 2 * dim * hidden
        for per_expert in ROWS_PER_EXPERT:
            rows = max(1, int(per_expert * EXPERTS / K))
            seconds = seconds_of(make_step(dim, hidden, EXPERTS, K, rows)) - call_seconds
            rates.append(Rate(parameters=parameters, rows=per_expert, flops=6 * rows * K * parameters / seconds))
    return rates


def measure_alone(rank: int, ranks: int) -> tuple[float, float, list[Rate]]:
    """Seconds of a call of a layer, bytes a second of Adam, and rates."""
    # A layer so small that its products take no time.
    call = seconds_of(make_step(8, 8, 2, 1, 2))
    return call, ADAM_BYTES * ADAM_PARAMETERS / seconds_of(_adam_step()), measure_rates(call)


def _adam_step() -> Callable[[], Any]:
    parameter = torch.nn.Parameter(torch.randn(ADAM_PARAMETERS))
    parameter.grad = torch.randn(ADAM_PARAMETERS)
    return torch.optim.AdamW([parameter], fused=True).step


def measure_busy(rank: int, ranks: int) -> float:
    """Seconds of the reference work, a layer's products and a step of Adam, while so many processes do it."""
    step, adam = make_step(*REFERENCE), _adam_step()
    return seconds_of(step, shared=True) + seconds_of(adam, shared=True)


def reference_seconds(machine: Machine) -> float:
    """What the reference work takes by the machine's description, alone."""
    dim, hidden, experts, k, rows = REFERENCE
    parameters = 2 * dim * hidden
    products = 6 * rows * k * parameters / machine.rate("fp32", parameters, rows * k / experts)
    return products + machine.call_seconds + ADAM_BYTES * ADAM_PARAMETERS / machine.bandwidth


def _collective(kind: str, size: int, ranks: int) -> Callable[[], Any]:
    """A collective over so many bytes, as `sent_bytes` counts them."""
    whole, part = torch.zeros(size // 4), torch.zeros(size // 4 // ranks)
    target = torch.empty_like(whole)
    return {
        "all_reduce": partial(dist.all_reduce, whole),
        "all_gather": partial(dist.all_gather_into_tensor, whole, part),
        "reduce_scatter": partial(dist.reduce_scatter_tensor, part, whole),
        "all_to_all": partial(dist.all_to_all_single, target, whole),
    }[kind]


def measure_links(rank: int, ranks: int) -> list[Link]:
    """Latency and bandwidth of each collective: the straight line through times by bytes, by relative error."""
    # Their names in the oldest torch that is supported; newer ones say that they have others.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    links = []
    for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        times = np.array([seconds_of(_collective(kind, size, ranks), shared=True) for size in SIZES])
        sent = np.array([sent_bytes(kind, size, ranks) for size in SIZES])
        messages = (2 if kind == "all_reduce" else 1) * (ranks - 1)
        columns = np.stack([np.full(len(SIZES), float(messages)), sent], 1)
        latency, per_byte = np.linalg.lstsq(columns / times[:, None], np.ones(len(SIZES)), rcond=None)[0]
        links.append(Link(kind=kind, ranks=ranks, latency=max(0.0, latency), bandwidth=1 / per_byte))
    return links


def measure_machine(processes: Sequence[int] = (2, 4)) -> Machine:
    """This machine, with a rank on each core; links between machines are assumed."""
    ((call, bandwidth, rates),) = on_processes(1, measure_alone)
    links = [link for number in processes for link in on_processes(number, measure_links)[0]]
    cores = os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    about = (
        f"{cores} cores of {processor_name()}, torch {torch.__version__}, one thread a rank, gloo, measured on "
        f"{date.today()}; 10 Gb/s and 50 µs between machines are assumed"
    )
    machine = Machine(
        about=about,
        ranks_per_node=cores,
        memory=memory / cores,
        products={"fp32": rates},
        bandwidth=bandwidth,
        call_seconds=call,
        overlap=0,
        inside=links,
        between=Link(latency=50e-6, bandwidth=10e9 / 8 / cores),
    )
    alone = reference_seconds(machine)
    slowdowns = {number: max(1.0, on_processes(number, measure_busy)[0] / alone) for number in processes}
    return machine.model_copy(update={"slowdowns": {1: 1.0} | slowdowns})
