"""One measurement: the time of every execution, of two dense layers, and of memory transfers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch

from moebius.execution.auto import Choice
from moebius.experts.ffn import FFN
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.lab.bench.bare import bare_products
from moebius.lab.bench.dense import find_best_chunk, forward_call, memory_transfers, run_in_chunks, step_call
from moebius.lab.bench.timing import Measurement, durations, ratio_row, time_in_turn, value_row
from moebius.lab.bench.workload import DTYPES, Workload
from moebius.layers.sparse_ffn import SparseFFN

ACTIVE, PARAMETERS, BARE = "dense, equal active work", "dense, equal parameters", "bare products"
# An execution or layer with this many times the necessary work or weights read is not run: it would take minutes.
_LARGEST_FACTOR = 16
# Largest number of bytes of a memory transfer: beyond any cache, and below the memory of a small machine.
_LARGEST_TRANSFER = 2**30


@dataclass(frozen=True)
class Cost:
    """The cost of one candidate: an execution of the sparse layer, or a dense layer.

    Arguments:
        name: name of the execution or of the dense layer.
        multiply_adds: multiply-adds of a forward.
        read: bytes of weights that a forward has to read once.
        written: bytes of gradients of the weights that a backward writes.
        times: milliseconds, by "forward" and "forward+backward".
        active, parameters: milliseconds compared with the dense layer of equal active work, and with the dense layer of
            equal parameters; empty for that layer itself, and where it was not run.
        bare: milliseconds compared with the bare products (`bare_products`).
    """

    name: str
    multiply_adds: int
    read: int
    written: int
    times: dict[str, Measurement]
    active: dict[str, Measurement]
    parameters: dict[str, Measurement]
    bare: dict[str, Measurement] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The figures of one measurement.

    Arguments:
        workload: the shapes.
        chosen: the execution that "auto" chooses, and the reason.
        costs: costs of the executions that were run, then of the dense layers and of the bare products.
        not_run: for each execution that was not run, the reason.
        chunks: number of rows at a time with which the dense layer of equal active work is fastest, by mode.
        memory: bytes a second of filling a tensor ("write"), and of reading and writing in a copy ("copy").
        floor: lower bounds in milliseconds: for reading the weights once ("read"), and for writing their gradients
            ("write").
        estimated: milliseconds of the dense layer of equal parameters, estimated by its multiply-adds, where it was not
            run; None where it was.
        busiest: number of rows of the expert with the most rows.
        idle: number of experts without rows.
    """

    workload: Workload
    chosen: Choice
    costs: list[Cost]
    not_run: dict[str, str]
    chunks: dict[str, int]
    memory: dict[str, float]
    floor: dict[str, float]
    estimated: float | None
    busiest: int
    idle: int

    def find_cost(self, name: str) -> Cost | None:
        """The cost of an execution or a dense layer; None where it was not run."""
        return next((cost for cost in self.costs if cost.name == name), None)

    def plain(self) -> dict[str, Any]:
        """All figures and the verdict as values that JSON can hold."""
        return {**asdict(self), "chosen": self.chosen._asdict(), "verdict": verdict(self)}


def bench(workload: Workload, rounds: int = 7, backward: bool = True) -> Bench:
    """Measure a sparse layer.

    Arguments:
        workload: the shapes.
        rounds: number of calls of each candidate, of which the median is taken.
        backward: whether to measure forward and backward together, beside the forward alone.

    Example:
        >>> bench(Workload(dim=4, hidden=8, experts=2, rows=16), rounds=1).chosen.name
        'sorted'
    """
    torch.manual_seed(0)
    layer, x = workload.make_layer(), workload.draw_rows(workload.rows)
    wait = torch.cuda.synchronize if workload.device == "cuda" else None
    modes = ("forward", "forward+backward") if backward else ("forward",)
    chosen = layer.mixture.chosen(x)
    load_E = _count_load(layer, x)
    loaded = int((load_E > 0).sum())
    runnable, not_run = _find_runnable(workload, layer, chosen.name)
    dense, wide = _make_dense(workload, workload.hidden), None
    if workload.total_multiply_adds <= _LARGEST_FACTOR * workload.active_multiply_adds:
        wide = _make_dense(workload, workload.experts * workload.hidden)
    dense_x, times, chunks = workload.draw_rows(workload.assignments), {}, {}
    for mode in modes:

        def make_dense_call(chunk: int, mode: str = mode) -> Callable[[], None]:
            if mode == "forward":
                return forward_call(lambda rows: run_in_chunks(dense, rows, chunk), dense_x)
            return step_call(dense, dense_x, chunk)

        chunks[mode] = find_best_chunk(make_dense_call, len(dense_x), wait)
        candidates = {name: _layer_call(layer, name, x, mode) for name in runnable}
        candidates[ACTIVE] = make_dense_call(chunks[mode])
        if wide is not None:
            candidates[PARAMETERS] = forward_call(wide, x) if mode == "forward" else step_call(wide, x)
        candidates[BARE] = bare_products(workload, mode)
        seconds = durations(time_in_turn(candidates, rounds, wait))
        times[mode] = {name: [1e3 * value for value in values] for name, values in seconds.items()}
    layer.zero_grad(set_to_none=True)
    memory = _measure_memory(workload, rounds, wait)
    costs = [_make_cost(workload, name, times, loaded) for name in times["forward"]]
    active = median(times[modes[-1]][ACTIVE])
    return Bench(
        workload,
        chosen,
        costs,
        not_run,
        chunks,
        memory,
        _find_floor(workload, memory, loaded),
        None if wide is not None else active * workload.experts / workload.k,
        int(load_E.max()),
        int((load_E == 0).sum()),
    )


def verdict(measured: Bench) -> str:
    """A sentence that says whether the sparse layer pays on this machine.

    It pays where the dense layer of equal parameters takes longer. Where the dense layer of equal active work takes
    less than half of the time, most of the sparse layer's time is not the work of its experts.
    """
    cost, mode = measured.find_cost(measured.chosen.name), list(measured.chunks)[-1]
    assert cost is not None
    active, verb = _invert_ratio(cost.active[mode]), "takes"
    if mode in cost.parameters:
        wide = _invert_ratio(cost.parameters[mode])
    else:
        assert measured.estimated is not None
        wide, verb = measured.estimated / cost.times[mode].value, "would take about"
    comparison = (
        f"a dense layer of equal active work takes {active:.2f} of the time that {measured.chosen.name} takes, and one "
        f"of equal parameters {verb} {wide:.2f} of it"
    )
    if wide <= 1:
        return f"The sparse layer does not pay: {comparison}."
    if active < 0.5:
        share = 1 - active
        return (
            f"The sparse layer pays for its parameters, but {share:.0%} of its time is no expert's work: {comparison}."
        )
    return f"The sparse layer pays: {comparison}."


def _invert_ratio(row: Measurement) -> float:
    assert row.ratio is not None
    return 1 / row.ratio


def _count_load(layer: SparseFFN, x: torch.Tensor) -> torch.Tensor:
    """(E,), number of rows of each expert."""
    with torch.no_grad():
        mixture = layer.mixture
        return mixture.router(mixture.gate(x)).aux["assigned"]


def _make_dense(workload: Workload, hidden: int) -> FFN:
    return FFN(workload.dim, hidden, workload.activation, workload.bias).to(workload.device, DTYPES[workload.dtype])


def _layer_call(layer: SparseFFN, execution: str, x: torch.Tensor, mode: str) -> Callable[[], None]:
    """A function that runs the layer by one execution."""
    run_layer = forward_call(layer, x) if mode == "forward" else step_call(layer, x)
    component = find("execution", execution)()

    def call() -> None:
        layer.mixture.execution = component
        run_layer()

    return call


def _find_runnable(workload: Workload, layer: SparseFFN, chosen: str) -> tuple[list[str], dict[str, str]]:
    """Names of the executions to run, and for each other one the reason why it is not run."""
    runnable, not_run = [], {}
    probe = workload.draw_rows(2)
    for name in kinds("execution"):
        if name == "auto":
            continue
        layer.mixture.execution = find("execution", name)()
        try:
            with torch.no_grad():
                layer(probe)
        except ArgumentError as error:
            not_run[name] = error.rule.removeprefix(f"{name} ")
            continue
        work, read = _count_work(workload, name, workload.experts)
        factor = work / workload.active_multiply_adds
        if name != chosen and factor > _LARGEST_FACTOR:
            not_run[name] = f"runs all experts on all rows: {factor:.0f} times the work of the others"
        elif name != chosen and read > _LARGEST_FACTOR * workload.experts * workload.expert_bytes:
            not_run[name] = f"is for few rows: it would read {read / 1e9:,.2g} GB of weights"
        else:
            runnable.append(name)
    layer.mixture.execution = find("execution", "auto")()
    return runnable, not_run


def _count_work(workload: Workload, name: str, loaded: int) -> tuple[int, int]:
    """Multiply-adds of a forward, and bytes of weights that it reads.

    Arguments:
        workload: the shapes.
        name: name of the execution or of the dense layer.
        loaded: number of experts that have rows.
    """
    if name in ("dense", PARAMETERS):
        return workload.total_multiply_adds, workload.experts * workload.expert_bytes
    if name == ACTIVE:
        return workload.active_multiply_adds, workload.expert_bytes
    experts_read = workload.assignments if name == "gather" else loaded
    return workload.active_multiply_adds, experts_read * workload.expert_bytes


def _make_cost(workload: Workload, name: str, times: dict[str, dict[str, list[float]]], loaded: int) -> Cost:
    """The cost of one candidate; `times` holds milliseconds by mode and candidate."""
    work, read = _count_work(workload, name, loaded)
    written = (1 if name == ACTIVE else workload.experts) * workload.expert_bytes
    rows = {mode: value_row(name, milliseconds[name], "ms") for mode, milliseconds in times.items()}
    comparisons = (
        {
            mode: ratio_row(name, milliseconds[name], versus, milliseconds[versus], "ms")
            for mode, milliseconds in times.items()
            if versus in milliseconds and versus != name
        }
        for versus in (ACTIVE, PARAMETERS, BARE)
    )
    return Cost(name, work, read, written, rows, *comparisons)


def _measure_memory(workload: Workload, rounds: int, wait: Callable[[], None] | None) -> dict[str, float]:
    """Bytes a second of each memory transfer."""
    size = min(max(workload.experts * workload.expert_bytes, 2**27), _LARGEST_TRANSFER)
    transfers = memory_transfers(size, workload.device)
    seconds = durations(time_in_turn({name: call for name, (call, _) in transfers.items()}, rounds, wait))
    return {name: count / median(seconds[name]) for name, (_, count) in transfers.items()}


def _find_floor(workload: Workload, memory: dict[str, float], loaded: int) -> dict[str, float]:
    """Milliseconds to read the weights of the `loaded` experts once, and to write the gradients of all experts."""
    read = loaded * workload.expert_bytes
    return {
        "read": 1e3 * read / memory["copy"],
        "write": 1e3 * workload.experts * workload.expert_bytes / memory["write"],
    }
