"""One measurement: every execution beside two dense layers and the limit of the memory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from moebius.execution.auto import Choice
from moebius.experts.ffn import FFN
from moebius.kit.errors import ArgumentError
from moebius.kit.registry import find, kinds
from moebius.lab.bench.dense import best_chunk, chunked, forward, moved, step
from moebius.lab.bench.problem import DTYPES, Problem
from moebius.lab.bench.timing import Row, alone, beside, in_turn, seconds
from moebius.layers.sparse_ffn import SparseFFN

ACTIVE, PARAMETERS = "dense, equal active work", "dense, equal parameters"
# What multiplies or reads so many times as much as it would have to is named and not run: it takes minutes.
_TOO_MUCH = 16
# Bytes that are moved to measure the memory: beyond any cache, and not all that a machine has.
_LARGEST = 2**30


@dataclass(frozen=True)
class Cost:
    """What a way through the layer takes.

    Arguments:
        name: of the execution, or of the dense layer.
        multiply_adds, read: of a forward, with the bytes of weights that it has to read once.
        written: bytes of gradients of the weights.
        times: by "forward" and "forward+backward": milliseconds.
        active, parameters: the same beside the dense layer of equal active work, and beside that of equal parameters;
            nothing where that is this one, or did not run.
    """

    name: str
    multiply_adds: int
    read: int
    written: int
    times: dict[str, Row]
    active: dict[str, Row]
    parameters: dict[str, Row]


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Arguments:
        problem: the shapes.
        chosen: the execution that "auto" picks, and why.
        costs: of the executions that ran, then of the dense layers.
        not_run: name → why not.
        chunks: rows at a time with which the dense layer of equal active work is fastest, by measurement.
        memory: bytes that are written, and moved by copying, in a second.
        floor: milliseconds that the memory needs at least to read the weights, and to write their gradients.
        estimated: milliseconds of the dense layer of equal parameters where it did not run: by its multiply-adds.
        busiest, idle: rows of the expert with most, and how many experts got none.
    """

    problem: Problem
    chosen: Choice
    costs: list[Cost]
    not_run: dict[str, str]
    chunks: dict[str, int]
    memory: dict[str, float]
    floor: dict[str, float]
    estimated: float | None
    busiest: int
    idle: int

    def cost(self, name: str) -> Cost | None:
        """That of an execution or dense layer, if it ran."""
        return next((cost for cost in self.costs if cost.name == name), None)

    def plain(self) -> dict[str, Any]:
        """The same as JSON takes it, with the verdict."""
        return {**asdict(self), "chosen": self.chosen._asdict(), "verdict": verdict(self)}


def bench(problem: Problem, rounds: int = 7, backward: bool = True) -> Bench:
    """Measure one set of shapes.

    Arguments:
        problem: the shapes.
        rounds: how many times everything is called, in turn, for one median.
        backward: whether backward is measured, too.

    Example:
        >>> bench(Problem(dim=4, hidden=8, experts=2, rows=16), rounds=1).chosen.name
        'sorted'
    """
    torch.manual_seed(0)
    layer, x = problem.layer(), problem.random_rows(problem.rows)
    wait = torch.cuda.synchronize if problem.device == "cuda" else None
    modes = ("forward", "forward+backward") if backward else ("forward",)
    chosen = layer.mixture.chosen(x)
    loads = _loads(layer, x)
    runnable, not_run = _runnable(problem, layer, chosen.name)
    dense, wide = _dense(problem, problem.hidden), None
    if problem.everything <= _TOO_MUCH * problem.active:
        wide = _dense(problem, problem.experts * problem.hidden)
    many, times, chunks = problem.random_rows(problem.assignments), {}, {}
    for mode in modes:

        def made(chunk: int, mode: str = mode) -> Callable[[], None]:
            whole = mode != "forward"
            return step(dense, many, chunk) if whole else forward(lambda rows: chunked(dense, rows, chunk), many)

        chunks[mode] = best_chunk(made, len(many), wait)
        candidates = {name: _through(layer, name, x, mode) for name in runnable}
        candidates[ACTIVE] = made(chunks[mode])
        if wide is not None:
            candidates[PARAMETERS] = forward(wide, x) if mode == "forward" else step(wide, x)
        taken = seconds(in_turn(candidates, rounds, wait))
        times[mode] = {name: [1e3 * second for second in each] for name, each in taken.items()}
    layer.zero_grad(set_to_none=True)
    memory = _memory(problem, rounds, wait)
    costs = [_cost(problem, name, times, int((loads > 0).sum())) for name in times["forward"]]
    active = median(times[modes[-1]][ACTIVE])
    return Bench(
        problem,
        chosen,
        costs,
        not_run,
        chunks,
        memory,
        _floor(problem, memory, int((loads > 0).sum())),
        None if wide is not None else active * problem.experts / problem.k,
        int(loads.max()),
        int((loads == 0).sum()),
    )


def verdict(measured: Bench) -> str:
    """Whether the sparse layer pays here, in a sentence."""
    ours, mode = measured.cost(measured.chosen.name), list(measured.chunks)[-1]
    assert ours is not None
    like, how = _inverse(ours.active[mode]), "takes"
    if mode in ours.parameters:
        wide = _inverse(ours.parameters[mode])
    else:
        assert measured.estimated is not None
        wide, how = measured.estimated / ours.times[mode].value, "would take about"
    known = (
        f"a dense layer of equal active work takes {like:.2f} of the time that {measured.chosen.name} takes, and one "
        f"of equal parameters {how} {wide:.2f} of it"
    )
    if wide <= 1:
        return f"The sparse layer does not pay: {known}."
    if like < 0.5:
        share = 1 - like
        return f"The sparse layer pays for its parameters, but {share:.0%} of its time is no expert's work: {known}."
    return f"The sparse layer pays: {known}."


def _inverse(row: Row) -> float:
    assert row.ratio is not None
    return 1 / row.ratio


def _loads(layer: SparseFFN, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        mixture = layer.mixture
        return mixture.router(mixture.gate(x)).aux["assigned"]


def _dense(problem: Problem, hidden: int) -> FFN:
    return FFN(problem.dim, hidden, problem.activation, problem.bias).to(problem.device, DTYPES[problem.dtype])


def _through(layer: SparseFFN, execution: str, x: torch.Tensor, mode: str) -> Callable[[], None]:
    call = forward(layer, x) if mode == "forward" else step(layer, x)
    way = find("execution", execution)()

    def through() -> None:
        layer.mixture.execution = way
        call()

    return through


def _runnable(problem: Problem, layer: SparseFFN, chosen: str) -> tuple[list[str], dict[str, str]]:
    """Names of the executions that run here, and why the others do not."""
    runnable, not_run = [], {}
    few = problem.random_rows(2)
    for name in kinds("execution"):
        if name == "auto":
            continue
        layer.mixture.execution = find("execution", name)()
        try:
            with torch.no_grad():
                layer(few)
        except ArgumentError as error:
            not_run[name] = error.rule.removeprefix(f"{name} ")
            continue
        work, read = _work(problem, name, problem.experts)
        if name != chosen and work > _TOO_MUCH * problem.active:
            not_run[name] = f"runs all experts on all rows: {work / problem.active:.0f} times the work of the others"
        elif name != chosen and read > _TOO_MUCH * problem.experts * problem.expert_bytes:
            not_run[name] = f"is for few rows: it would read {read / 1e9:,.2g} GB of weights"
        else:
            runnable.append(name)
    layer.mixture.execution = find("execution", "auto")()
    return runnable, not_run


def _work(problem: Problem, name: str, reached: int) -> tuple[int, int]:
    """Multiply-adds of a forward, and bytes of weights that it reads."""
    if name in ("dense", PARAMETERS):
        return problem.everything, problem.experts * problem.expert_bytes
    if name == ACTIVE:
        return problem.active, problem.expert_bytes
    return problem.active, (problem.assignments if name == "gather" else reached) * problem.expert_bytes


def _cost(problem: Problem, name: str, times: dict[str, dict[str, list[float]]], reached: int) -> Cost:
    work, read = _work(problem, name, reached)
    written = (1 if name == ACTIVE else problem.experts) * problem.expert_bytes
    against = [
        {mode: beside(name, of[name], other, of[other], "ms") for mode, of in times.items() if other in of}
        if other != name
        else {}
        for other in (ACTIVE, PARAMETERS)
    ]
    return Cost(name, work, read, written, {mode: alone(name, of[name], "ms") for mode, of in times.items()}, *against)


def _memory(problem: Problem, rounds: int, wait: Callable[[], None] | None) -> dict[str, float]:
    size = min(max(problem.experts * problem.expert_bytes, 2**27), _LARGEST)
    ways = moved(size, problem.device)
    times = seconds(in_turn({name: call for name, (call, _) in ways.items()}, rounds, wait))
    return {name: count / median(times[name]) for name, (_, count) in ways.items()}


def _floor(problem: Problem, memory: dict[str, float], reached: int) -> dict[str, float]:
    read = reached * problem.expert_bytes
    return {
        "read": 1e3 * read / memory["copy"],
        "write": 1e3 * problem.experts * problem.expert_bytes / memory["write"],
    }
