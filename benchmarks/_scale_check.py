"""Predicted beside measured: training steps on 1, 2 and 4 processes of this machine, for `scale.py --check`.

Other work on the machine slows a check down. So how much longer work takes on so many processes is measured again, as
`scale.py --measure` does it, before and after their steps. All else is the machine's description.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from _scale_job import Job, Layout
from _scale_machine import Machine
from _scale_measure import measure_busy, reference_seconds
from _scale_model import Cost, cost
from _scale_runs import Run, on_processes, run_steps

LAYOUTS = {
    1: [Layout(1)],
    2: [Layout(2), Layout(2, sharded=True), Layout(2, 2), Layout(2, 2, sharded=True)],
    4: [
        Layout(4),
        Layout(4, sharded=True),
        Layout(4, 4),
        Layout(4, 4, sharded=True),
        Layout(4, 2),
        Layout(4, 2, sharded=True),
    ],
}
# E, D, hidden, rows of a rank: no widths that `--measure` has measured.
SHAPES = ((8, 128, 256, 256), (8, 384, 768, 1024), (64, 128, 256, 512))
# A time is the least of so many steps, and of as many as take so long.
STEPS, SECONDS = 4, 0.8


class Pair(NamedTuple):
    """A job on a layout: what the model says, and what was measured (of the slowest, or largest, process)."""

    job: Job
    layout: Layout
    predicted: Cost
    measured: Run

    @property
    def ratio(self) -> float:
        """Predicted seconds by measured ones."""
        return self.predicted.seconds / self.measured.seconds


def make_job(experts: int, dim: int, hidden: int, rows: int) -> Job:
    """Two layers, two experts a row, in fp32."""
    return Job(experts, dim, hidden, layers=2, k=2, rows=rows, dense=dim**2, format="fp32")


def run_between(rank: int, ranks: int, cases: Sequence[tuple[Job, Layout]]) -> tuple[list[Run], float, float]:
    """The runs of all cases, and the seconds of `measure_busy` before and after."""
    before = measure_busy(rank, ranks)
    # What is imported and allocated once belongs to no case: the first one runs twice.
    runs = run_steps(rank, ranks, [cases[0], *cases], STEPS, SECONDS)[1:]
    return runs, before, measure_busy(rank, ranks)


def measure_pairs(machine: Machine) -> list[Pair]:
    """Train every shape on every layout of so many ranks, beside what the model says of this machine."""
    pairs, alone = [], reference_seconds(machine)
    for number, layouts in LAYOUTS.items():
        cases = [(make_job(*shape), layout) for shape in SHAPES for layout in layouts]
        results = on_processes(number, run_between, cases)
        _, before, after = results[0]
        slowdown = max(1.0, (before + after) / 2 / alone)
        here = machine.model_copy(update={"ranks_per_node": number, "slowdowns": {number: slowdown}})
        for (job, layout), *of_ranks in zip(cases, *(runs for runs, *_ in results), strict=True):
            measured = Run(*(max(values) for values in zip(*of_ranks, strict=True)))
            pairs.append(Pair(job, layout, cost(job, layout, here), measured))
        print(f"{number} ranks: work takes {slowdown:.2f} times as long", flush=True)
    return pairs


def error(pairs: Sequence[Pair]) -> dict[str, float]:
    """Median and largest factor between predicted and measured seconds, whichever is larger, and how many pairs."""
    factors = [max(pair.ratio, 1 / pair.ratio) for pair in pairs]
    return {"median": statistics.median(factors), "worst": max(factors), "pairs": len(factors)}


def as_row(pair: Pair) -> dict[str, Any]:
    """The pair as plain values: milliseconds and bytes."""
    job, predicted, measured = pair.job, pair.predicted, pair.measured
    return {
        "ranks": pair.layout.ranks,
        "layout": pair.layout.name,
        "experts": job.experts,
        "dim": job.dim,
        "hidden": job.hidden,
        "rows": job.rows,
        "predicted_ms": 1e3 * predicted.seconds,
        "measured_ms": 1e3 * measured.seconds,
        "ratio": pair.ratio,
        "predicted_states": predicted.memory.states,
        "measured_states": measured.states,
        "predicted_peak": predicted.memory.total,
        "measured_peak": measured.peak,
        "predicted_exchanged": predicted.exchanged,
        "measured_exchanged": measured.exchanged,
    }
