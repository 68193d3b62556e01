"""Part `rule` of `gpu.py`: all executions of a sparse layer at several sizes, and what `auto` picks among them."""

from collections.abc import Iterable
from typing import Any

from _compare import Measurement
from _gpu_conditions import Conditions, Item
from _gpu_problem import Shape

from moebius.kit.registry import kinds
from moebius.lab.bench.measure import bench
from moebius.lab.bench.workload import Workload

# Beside what is measured already (D = 2,048, hidden 1,024, 4,096 rows an expert), nearest first: experts, k, rows.
ROUTED = ((64, 8, 32768), (64, 8, 8192), (64, 8, 1024), (128, 8, 32768), (8, 2, 8192))
WIDTHS = ((2048, 1024), (1024, 512), (4096, 1024), (512, 2048), (4096, 14336))
TRAINING = "forward+backward"


def sizes(dry: bool) -> list[tuple[Shape, str, bool, str]]:
    """What to measure, in order of value: the shape, the activation, whether there are biases, and the format."""
    if dry:
        return [(Shape(24, 16, 32, 4, 2), "swiglu", False, dtype) for dtype in ("bf16", "fp32")]
    layers = [
        (Shape(rows, features, hidden, experts, k), "swiglu", False, "bf16")
        for features, hidden in WIDTHS
        for experts, k, rows in ROUTED
        # Many wide experts would take tens of gigabytes.
        if hidden < 8192 or experts == 8
    ]
    others = [(Shape(8192, 2048, 1024, 64, 8), "gelu", True, dtype) for dtype in ("bf16", "fp32")]
    return [*layers[: len(ROUTED)], *others, *layers[len(ROUTED) :]]


def make_items(conditions: Conditions) -> dict[str, Item]:
    """An item for each size."""
    return {
        f"{shape} {activation}{' biases' if bias else ''} {dtype}": _bench_item(
            conditions.device, shape, activation, bias, dtype
        )
        for shape, activation, bias, dtype in sizes(conditions.dry)
    }


def _bench_item(device: str, shape: Shape, activation: str, bias: bool, dtype: str) -> Item:
    layer = (shape.features, shape.hidden, shape.experts, shape.k, shape.rows, activation, bias, dtype, device)

    def measure() -> tuple[list[Measurement], dict]:
        measured = bench(Workload(*layer), rounds=3)
        rows = [
            Measurement(f"{cost.name}, {mode}", row.value, row.unit, None, None, row.spread)
            for cost in measured.costs
            for mode, row in cost.times.items()
        ]
        return rows, {"auto": measured.chosen.name, "reason": measured.chosen.reason, "not_run": measured.not_run}

    return measure


def rule_lines(card: str, lines: Iterable[dict[str, Any]]) -> list[str]:
    """A table: for each size the fastest execution, what `auto` picks, and how much slower that is."""
    text = [f"What is fastest on {card}, and what auto picks (milliseconds forward+backward):"]
    for line in lines:
        trained = [row for row in line["figures"] if row["name"].endswith(f", {TRAINING}")]
        times = {row["name"].removesuffix(f", {TRAINING}"): row["value"] for row in trained}
        executions = {name: value for name, value in times.items() if name in kinds("execution")}
        if not executions:
            continue
        fastest, auto = min(executions, key=executions.__getitem__), line["auto"]
        ratio = f"{executions[auto] / executions[fastest]:.2f}" if auto in executions else "–"
        shown = ", ".join(f"{name} {value:.3g}" for name, value in sorted(executions.items(), key=lambda pair: pair[1]))
        text.append(f"  {line['item']}: fastest {fastest}, auto {auto} ({ratio} × the fastest); {shown}")
    return text if len(text) > 1 else []
