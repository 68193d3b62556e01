"""Real training steps on gloo processes, for `scale.py --check`, and the processes that they run on."""

import ctypes
import gc
import queue
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.multiprocessing as multiprocessing
from _scale_job import Job, Layout
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import moebius as mb
from moebius.distributed import _exchange


def _work(rank: int, ranks: int, meeting: str, results: Any, function: Callable, arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", meeting, rank=rank, world_size=ranks, timeout=timedelta(seconds=120))
        results.put((rank, function(rank, ranks, *arguments), None))
        dist.barrier()
        dist.destroy_process_group()
    except Exception:
        results.put((rank, None, traceback.format_exc()))


def on_processes(ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(rank, ranks, *arguments)` returns in each of so many gloo processes of one thread.

    Raises:
        RuntimeError: a process failed; with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting, results = (Path(folder) / "meeting").as_uri(), context.Queue()
        processes = [
            context.Process(target=_work, args=(rank, ranks, meeting, results, function, arguments), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        returned: dict[int, Any] = {}
        try:
            while len(returned) < ranks:
                try:
                    rank, value, error = results.get(timeout=5)
                except queue.Empty:
                    if all(process.is_alive() for process in processes):
                        continue
                    raise RuntimeError(f"a process of {ranks} ended without a result") from None
                if error is not None:
                    raise RuntimeError(error)
                returned[rank] = value
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.kill()
    return [returned[rank] for rank in range(ranks)]


class Layer(nn.Module):
    """x + ffn(W x): the layer that the model of costs prices."""

    def __init__(self, job: Job):
        super().__init__()
        self.dense = nn.Linear(job.dim, job.dim, bias=False)
        activation = "swiglu" if job.gated else "gelu"
        self.ffn = mb.layers.SparseFFN(job.dim, job.hidden, job.experts, job.k, activation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(self.dense(x))


def make_layers(job: Job) -> nn.Sequential:
    """A model of such layers; `job.dense` is dim²."""
    return nn.Sequential(*(Layer(job) for _ in range(job.layers)))


def distribute(model: nn.Sequential, layout: Layout) -> tuple[nn.Module, Callable[[], None]]:
    """The model as it is called on the layout, and what reduces its gradients after backward."""
    if layout.ranks == 1:
        return model, lambda: None
    whole = init_device_mesh("cpu", (layout.ranks,))
    if layout.group == 1:
        if not layout.sharded:
            return DistributedDataParallel(model), lambda: None
        for layer in model:
            fully_shard(layer, mesh=whole)
        fully_shard(model, mesh=whole)
        return model, lambda: None
    mesh = whole
    if layout.copies > 1:
        mesh = init_device_mesh("cpu", (layout.copies, layout.group), mesh_dim_names=("data", "expert"))
    mb.distributed.expert_parallel(model, mesh, gradients="mean")
    if not layout.sharded:
        return model, lambda: mb.distributed.reduce_gradients(model)
    if layout.copies > 1:
        for layer in model:
            fully_shard(layer.ffn.mixture.experts, mesh=mesh["data"])
    experts = mb.distributed.expert_parameters(model)
    for layer in model:
        fully_shard(layer, mesh=whole, ignored_params=experts)
    fully_shard(model, mesh=whole, ignored_params=experts)
    return model, lambda: None


@contextmanager
def counted_rows() -> Iterator[list[int]]:
    """Inside the block the list grows by the bytes of rows of every all-to-all that go to other processes."""
    counts: list[int] = []
    move = _exchange.move_rows

    def move_rows(values: Tensor, send: Sequence[int], receive: Sequence[int], group: Any) -> Tensor:
        others = sum(send) - send[dist.get_rank(group)]
        counts.append(others * values[:1].numel() * values.element_size())
        return move(values, send, receive, group)

    _exchange.move_rows = move_rows
    try:
        yield counts
    finally:
        _exchange.move_rows = move


def local_bytes(tensors: Any) -> int:
    """Bytes of the tensors, or of this process's shards of them."""
    parts = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors if tensor is not None]
    return sum(part.numel() * part.element_size() for part in parts)


class Run(NamedTuple):
    """What was measured of a training step: seconds (the least of the steps) and bytes of this process."""

    seconds: float
    states: int
    peak: int
    exchanged: int


def _resident(name: str) -> int:
    """Bytes by a line of /proc/self/status: VmRSS now, VmHWM at the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def resident_after_trim() -> int:
    """Bytes of this process's memory, after what was freed has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return _resident("VmRSS")


@contextmanager
def exact_residence() -> Iterator[None]:
    """Inside the block each larger tensor has memory of its own, which goes back when it is freed; the peak begins."""
    libc, mmap_threshold = ctypes.CDLL(None), -3
    libc.mallopt(mmap_threshold, 2**16)
    resident_after_trim()
    Path("/proc/self/clear_refs").write_text("5")
    try:
        yield
    finally:
        libc.mallopt(mmap_threshold, 2**25)


def run_steps(rank: int, ranks: int, cases: Sequence[tuple[Job, Layout]], steps: int, seconds: float) -> list[Run]:
    """Train each case for so many steps, or for so long if that is more; the slowest process counts in each step."""
    return [_run_case(rank, job, layout, steps, seconds) for job, layout in cases]


def _run_case(rank: int, job: Job, layout: Layout, steps: int, least: float) -> Run:
    torch.manual_seed(0)
    before = resident_after_trim()
    model = make_layers(job)
    called, reduce = distribute(model, layout)
    optimizer = torch.optim.AdamW(mb.distributed.parameter_groups(model), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(job.rows, job.dim, generator=generator)

    def step() -> int:
        optimizer.zero_grad()
        with counted_rows() as counts:
            called(x).square().mean().backward()
        reduce()
        optimizer.step()
        return sum(counts)

    times: list[float] = []
    while len(times) < steps or sum(times) < least:
        dist.barrier()
        begin = time.perf_counter()
        step()
        seconds = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        dist.all_reduce(seconds, dist.ReduceOp.MAX)
        times.append(float(seconds))
    with exact_residence():
        exchanged = step()
        peak = _resident("VmHWM") - before
    parameters = [*model.parameters()]
    moments = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    states = local_bytes(parameters) + local_bytes(p.grad for p in parameters) + local_bytes(moments)
    return Run(min(times), states, peak, exchanged)
