"""Part `speed` of `gpu.py`: TFLOP/s and peaks of memory beside a dense product, `grouped_mm` and other libraries."""

import time
from collections.abc import Callable
from typing import Any

import torch
from _compare import Measurement, comparison_rows
from _gpu_conditions import Conditions, Item
from _gpu_problem import LARGE, TINY, Problem, Shape
from _gpu_steps import Step, make_steps

from moebius.lab.bench.timing import value_row


def make_items(conditions: Conditions) -> dict[str, Item]:
    """An item for each shape."""
    shapes = TINY[:1] if conditions.dry else LARGE
    return {f"{shape} swiglu bf16": _speed_item(conditions, shape) for shape in shapes}


def _speed_item(conditions: Conditions, shape: Shape) -> Item:
    def measure_shape() -> tuple[list[Measurement], dict]:
        # Triton's interpreter has no bf16 numbers.
        dtype = torch.float32 if conditions.dry else torch.bfloat16
        return measure(Problem(shape, "swiglu", conditions.device, dtype), 2 if conditions.dry else 10)

    return measure_shape


def time_call(call: Callable[[], Any], on_gpu: bool) -> tuple[Any, float]:
    """The value of a call, and its seconds on the device."""
    if not on_gpu:
        begun = time.perf_counter()
        return call(), time.perf_counter() - begun
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    value = call()
    end.record()
    end.synchronize()
    return value, begin.elapsed_time(end) / 1e3


def measure(problem: Problem, rounds: int) -> tuple[list[Measurement], dict[str, Any]]:
    """TFLOP/s of forward and backward with their ratios, peaks of memory, and why candidates did not run."""
    steps, reasons = make_steps(problem)
    prefix, on_gpu = f"{problem.shape} {problem.activation}, ", problem.x.is_cuda
    speeds: dict[str, dict[str, list[float]]] = {
        direction: {name: [] for name in steps} for direction in ("forward", "backward")
    }
    for number in range(rounds + 2):
        for name, step in steps.items():
            backward, forward_seconds = time_call(step, on_gpu)
            backward_seconds = time_call(backward, on_gpu)[1]
            del backward
            if number > 1:
                speeds["forward"][name].append(problem.forward_tflop / forward_seconds)
                speeds["backward"][name].append(2 * problem.forward_tflop / backward_seconds)
    pairs = [("fused", name) for name in steps if name != "fused"]
    rows = []
    for direction, values in speeds.items():
        rows += comparison_rows(values, pairs, "TFLOP/s", f"{prefix}{direction}, ")
    for name, step in steps.items() if on_gpu else ():
        peak = measure_peak(step)
        rows.append(value_row(f"{prefix}peak memory, {name}", [peak], "GiB"))
    return rows, {"not_run": reasons}


def measure_peak(step: Step) -> float:
    """The peak of memory of a forward and a backward, in GiB, without what was there before."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()()
    return (torch.cuda.max_memory_allocated() - before) / 2**30
